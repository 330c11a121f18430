"""Fields of an image, its captions and its class, for tests of the pipeline."""

from mmjax.data import fields
from mmjax.data.fields import label, text, tokens


def of(source, encoder, image, **options):
    """The fields of the source's batches; options are the text field's."""
    ids = tokens.Field().open("image_tokens", source)
    every = {"image": image, "image_tokens": ids, "label": label.Field()}
    names = ["image|image_tokens", "label?"]
    if encoder is not None:
        every["tokens"] = text.Field(**options).bound(encoder=encoder)
        names.append("tokens")
    return fields.choose(every, source, names)
