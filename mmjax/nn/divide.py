"""One check of sizes that must be multiples of others."""

from mmjax.errors import UserError


def check(what: str, size: int, by: int, parts: str = "") -> None:
    """UserError unless `size` is a multiple of `by`, with the nearest size that is.

    Args:
      what: the size's name in the message.
      parts: what the size splits over; without it the message asks for a multiple.
    """
    if size % by or not size:
        rule = f"split over {by} {parts}" if parts else f"be a multiple of {by}"
        raise UserError(f"{what} {size} must {rule}: use {max(by, size // by * by)}")
