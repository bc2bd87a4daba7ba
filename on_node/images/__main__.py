"""`python3 -m on_node.images VERB JSON`: what `slurmstack image` does on hosts.

Steps are told on stderr, the outcome on stdout as one line of JSON. Ends with 3 where something is
refused; the line has `refused` then.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from on_node.images import build, keeping, pull, trial, used
from on_node.images.recipe import Site
from on_node.images.refused import Refused

Words = Mapping[str, Any]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _build(words: Words) -> Any:
    site = Site.read()
    return build.build(site, site.recipe(words["name"]), words["who"], _say)


def _test(words: Words) -> Any:
    site = Site.read()
    return trial.test(site, site.recipe(words["name"]), words["who"], _say)


def _tested(words: Words) -> Any:
    site = Site.read()
    return trial.of_nodes(site, site.recipe(words["name"]), words["results"])


def _publish(words: Words) -> Any:
    site = Site.read()
    return keeping.publish(site, words["name"], words["version"], words["tests"], words["who"])


def _list(words: Words) -> Any:
    return keeping.listed(Site.read(), words["quick"])


def _remove(words: Words) -> Any:
    name, version = words["name"], words["version"]
    return keeping.remove(Site.read(), name, version, words["users"], words["who"])


def _collect(words: Words) -> Any:
    return keeping.collect(Site.read(), words["users"], words["who"], words["dry"])


def _used(words: Words) -> Any:
    if words["jobs"]:
        return used.by_jobs(words["names"])
    return used.by_programs(Path(words["root"]), words["names"])


def _pull(words: Words) -> Any:
    root = Path(words["root"])
    return pull.pull(root, words["entry"], words["url"], words["limit"], words["stay"])


def _point(words: Words) -> Any:
    return pull.point(Path(words["root"]), words["name"], words["version"])


def _forget(words: Words) -> Any:
    return pull.collect(Path(words["root"]), words["published"])


def _lend(words: Words) -> Any:
    return pull.lend(Path(words["root"]), words["entry"], words["url"], words["limit"])


def _give_back(words: Words) -> Any:
    return pull.give_back(Path(words["root"]), words["file"])


_VERBS: Mapping[str, Callable[[Words], Any]] = {
    "build": _build,
    "test": _test,
    "tested": _tested,
    "publish": _publish,
    "ls": _list,
    "rm": _remove,
    "gc": _collect,
    "used": _used,
    "pull": _pull,
    "point": _point,
    "forget": _forget,
    "lend": _lend,
    "give-back": _give_back,
}


def main(words: Sequence[str]) -> int:
    verb, told = words
    try:
        print(json.dumps(_VERBS[verb](json.loads(told))))
    except (Refused, OSError) as error:
        print(json.dumps({"refused": str(error)}))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
