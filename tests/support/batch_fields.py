"""Fields of an image, its captions and its class, for tests of the pipeline."""

from mmjax.data import fields, pipeline
from mmjax.data.fields import label, text, tokens


def every(source, encoder, image, **options):
    """Fields by name; options are the text field's."""
    ids = tokens.Field().open("image_tokens", source)
    named = {"image": image, "image_tokens": ids, "label": label.Field()}
    if encoder is not None:
        named["tokens"] = text.Field(**options).bound(encoder=encoder)
    return named


def of(source, encoder, image, **options):
    """The fields of the source's batches."""
    names = ["image|image_tokens", "label?", "tokens"][: 2 + (encoder is not None)]
    return fields.choose(every(source, encoder, image, **options), source, names)


def batches(encoder, image):
    """What an evaluator's Env has as `eval_batches`."""

    def opened(source, names, *, batch_size):
        chosen = fields.choose(every(source, encoder, image), source, names)
        return pipeline.eval_batches(source, chosen, batch_size=batch_size)

    return opened
