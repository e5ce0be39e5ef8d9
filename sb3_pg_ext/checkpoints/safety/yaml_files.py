"""YAML of strangers: data alone, and no more of it than the file is large."""

from typing import Any

import yaml

MAX_CHARACTERS = 256 * 1024
MAX_NODES = 10_000
"""So many numbers, texts and containers may stand in a file, counted wherever an alias refers to them."""

MERGE = "tag:yaml.org,2002:merge"


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's loader for data, without what lets a few bytes stand for very much.

    :param stream: a text, or an open file
    :raises yaml.YAMLError: in loading, for more than :data:`MAX_CHARACTERS` and :data:`MAX_NODES`, for merge keys
        (``<<``), and for what contains itself
    """

    def __init__(self, stream: Any) -> None:
        text = stream if isinstance(stream, str) else stream.read(MAX_CHARACTERS + 1)
        if len(text) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"a file of more than {MAX_CHARACTERS} characters")
        super().__init__(text)
        self._n_nodes = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One of the nodes of the file, or what an alias refers to."""
        is_alias, before = self.check_event(yaml.AliasEvent), self._n_nodes
        node = super().compose_node(parent, index)
        assert node is not None
        if is_alias:
            if id(node) not in self._sizes:
                raise yaml.YAMLError("it contains itself")
            self._n_nodes += self._sizes[id(node)]
        else:
            self._n_nodes += 1
            self._sizes[id(node)] = self._n_nodes - before
        if self._n_nodes > MAX_NODES:
            raise yaml.YAMLError(f"it holds more than {MAX_NODES} items")
        if node.tag == MERGE:
            raise yaml.YAMLError("it merges mappings (<<)")
        return node
