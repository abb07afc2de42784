"""A strict reader of the Prometheus text format 0.0.4, so that a metric nobody could scrape fails a test."""
import math
import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')


class Family:
    def __init__(self, name, help):
        self.name, self.help, self.type = name, help, None
        self.samples = {}  # (name, ((label, value), …)): number


def labels(text):
    out, at = [], 0
    while at < len(text):
        m = LABEL.match(text, at)
        assert m, f"not labels: {text!r}"
        out.append(m.groups())
        at = m.end()
    assert len({k for k, _ in out}) == len(out), f"a label twice: {text!r}"
    return tuple(out)


def check_histogram(f):
    for labels in {tuple(pair for pair in k[1] if pair[0] != "le") for k in f.samples}:
        buckets = [(float(dict(k[1])["le"]), v) for k, v in f.samples.items()
                   if k[0] == f.name + "_bucket" and tuple(p for p in k[1] if p[0] != "le") == labels]
        assert buckets == sorted(buckets) and [v for _, v in buckets] == sorted(v for _, v in buckets), f"{f.name}: {buckets}"
        assert buckets[-1] == (math.inf, f.samples[(f.name + "_count", labels)]) and (f.name + "_sum", labels) in f.samples


def parse(text):
    """{name: Family}.  AssertionError for whatever Prometheus would refuse, and for families without HELP and TYPE."""
    assert text.endswith("\n"), "the last line has no end"
    families, f = {}, None
    for line in text.split("\n")[:-1]:
        if m := re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line):
            assert m[1] not in families, f"{m[1]} twice"
            f = families[m[1]] = Family(*m.groups())
        elif m := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|untyped)", line):
            assert f and f.name == m[1] and not f.type and not f.samples, line
            f.type = m[2]
        else:
            m = SAMPLE.fullmatch(line)
            assert m and f and f.type, f"not a line of the format: {line!r}"
            suffixes = ("_bucket", "_sum", "_count") if f.type == "histogram" else ("",)
            assert m[1] in [f.name + s for s in suffixes], f"{m[1]} stands among the samples of {f.name}"
            key = (m[1], labels(m[2] or ""))
            assert key not in f.samples, f"{key} twice"
            f.samples[key] = float(m[3])
            assert f.type != "counter" or (m[1].endswith("_total") and f.samples[key] >= 0), line
    for f in families.values():
        assert f.samples, f"{f.name} has no sample"
        if f.type == "histogram":
            check_histogram(f)
    return families


def value(families, name, **want):
    """The one sample of that name and these labels; that of a histogram is NAME_count."""
    found = [v for (n, ls), v in families[name.removesuffix("_count") if name not in families else name].samples.items()
             if n == name and dict(ls) == want]
    assert len(found) == 1, f"{name} {want}: {found}"
    return found[0]
