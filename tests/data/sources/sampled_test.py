from mmjax.data import tokenizers
from mmjax.data.sources import open_source, views


class Numbered:
    """A source of which only captions are read, each of them its number."""

    def __init__(self, count):
        self.count, self.read = count, []

    def __len__(self):
        return self.count

    def texts(self):
        return map(str, range(self.count))

    def captions(self, i):
        self.read.append(i)
        return [str(i)]


def test_a_sample_is_runs_evenly_spaced_and_all_of_a_small_set(monkeypatch):
    monkeypatch.setattr(views, "_RUN", 10)
    texts = list(views.sampled_texts(Numbered(1000), 50))
    want = [at + k for at in (0, 200, 400, 600, 800) for k in range(10)]
    assert texts == [str(i) for i in want]
    assert list(views.sampled_texts(Numbered(50), 50)) == [str(i) for i in range(50)]
    assert len(list(views.sampled_texts(Numbered(10**9), 3))) == 3


def test_a_tokenizer_of_a_sample_is_the_same_each_time(monkeypatch):
    monkeypatch.setattr(views, "_RUN", 8)
    source = open_source("shapes:train?size=16&count=64")
    built = [
        tokenizers.build(
            {"kind": "bpe", "vocab_size": 540}, texts=views.sampled_texts(source, 32)
        ).to_json()
        for _ in range(2)
    ]
    assert built[0] == built[1]
