"""What a rule is, wherever it stands: in `topology.invariants` for every platform, in `topology.platforms` for one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from topology.model import Topology
from topology.problems import Problem
from topology.settings import Settings

#: From the settings of a stack and the topology built from them, the problems that it finds.
Rule = Callable[[Settings, Topology], Iterator[Problem]]
