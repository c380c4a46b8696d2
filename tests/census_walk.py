"""Which names of the tensorrt binding a source reaches, and in which versions they are missing.

`findings(source)` walks the syntax tree. An expression is known to be the module (a name `trt` or
`tensorrt`, an import alias, `self._trt`), or an object of one of its classes: by its constructor,
by the method that returns it, by the attribute it was stored in, through a wrapper that is given
the object or the method, or by a parameter or attribute `builder`, `network`, `_engine`, ...
annotated `Any`. Each attribute of these must exist in every version that
can get there; `if hasattr(...)` narrows the versions in its branches, and `if not hasattr(...):
return` in what follows. As a net for objects of unknown type, a name that no class has in all
versions is a finding wherever it stands. So is a name that is computed, except in
`trt_capabilities.member`, and a plain integer where the binding wants a flag.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from fake_tensorrt.census import Census, present_in, versions

# The parts of 'Class.method' whose answer is an object of a class.
RETURNS = {
    "Builder.create_network": "INetworkDefinition",
    "Builder.create_builder_config": "IBuilderConfig",
    "Builder.create_optimization_profile": "IOptimizationProfile",
    "Builder.build_serialized_network": "IHostMemory",
    "IBuilderConfig.create_timing_cache": "ITimingCache",
    "IBuilderConfig.get_timing_cache": "ITimingCache",
    "ITimingCache.serialize": "IHostMemory",
    "INetworkDefinition.get_input": "ITensor",
    "INetworkDefinition.get_output": "ITensor",
    "OnnxParser.get_error": "ParserError",
    "Runtime.deserialize_cuda_engine": "ICudaEngine",
    "ICudaEngine.create_execution_context": "IExecutionContext",
    "ICudaEngine.create_engine_inspector": "EngineInspector",
}
# Parameters and attributes annotated `Any` with these names are objects of the binding.
PARAMETERS = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}
MODULE = ""  # the kind of the module itself
_MODULE_NAMES = {"trt", "tensorrt", "_trt"}
_FLAG_TAKERS = {"create_network", "set_flag", "clear_flag", "set_memory_pool_limit"}
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True, order=True)
class Finding:
    """A name that some version lacks, or that cannot be checked."""

    line: int
    path: str
    reason: str


def findings(source: str, own_names: Iterable[str] = ()) -> list[Finding]:
    """Everything wrong with a source; `own_names` are attributes of the project's own classes."""
    walker = _Walker(frozenset(own_names))
    walker.block(ast.parse(source).body, frozenset(versions()))
    return sorted(walker.found)


def reached(source: str) -> set[str]:
    """Every path that the walk could name, to see that it is not blind."""
    walker = _Walker(frozenset())
    walker.block(ast.parse(source).body, frozenset(versions()))
    return walker.reached


def reaches_tensorrt(source: str) -> bool:
    """Whether the source has anything to do with the binding's objects."""
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return bool(names & _MODULE_NAMES)


def attributes_of(sources: Iterable[str]) -> set[str]:
    """Names of fields, methods and attributes that the sources' own classes define."""
    found = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found |= set(_class_names(node))
    return found


def _class_names(node: ast.ClassDef) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef):
            yield one.name
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id
        elif isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store) and _name(one):
            yield one.attr


@lru_cache(maxsize=1)
def moving_names() -> frozenset[str]:
    """Members that no class has in all versions."""
    everywhere: set[str] = set()
    somewhere: set[str] = set()
    for version in versions():
        census = Census(version=version)
        for cls in census.classes():
            for name in census.members(cls):
                is_constant = len(present_in(f"{cls}.{name}")) == len(versions())
                (everywhere if is_constant else somewhere).add(name)
    return frozenset(somewhere - everywhere)


class _Walker:
    """Walks blocks with the set of versions that can get there."""

    def __init__(self, own_names: frozenset[str]) -> None:
        self.found: set[Finding] = set()
        self.reached: set[str] = set()
        self._own_names = own_names
        self._kinds: dict[str, str] = {}  # variable or 'self.attribute' -> kind
        self._declared: dict[str, str] = {}  # 'self.attribute' annotated `Any` -> kind

    def block(self, body: list[ast.stmt], window: frozenset[str]) -> None:
        """Walk statements in their order; what ends early narrows what follows."""
        for statement in body:
            window = self._statement(statement, window)

    def _statement(self, node: ast.stmt, window: frozenset[str]) -> frozenset[str]:
        if isinstance(node, ast.If):
            return self._if(node, window)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self._function(node, window)
        elif isinstance(node, ast.ClassDef):
            self._class(node, window)
        else:
            if isinstance(node, (ast.Assign, ast.AnnAssign)):
                self._assign(node)
            if isinstance(node, ast.Import):
                self._import(node)
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._expression(child, window)
                elif isinstance(child, (ast.withitem, ast.ExceptHandler, ast.match_case)):
                    for inner in ast.iter_child_nodes(child):
                        if isinstance(inner, ast.expr):
                            self._expression(inner, window)
                        elif isinstance(inner, ast.stmt):
                            self.block([inner], window)
            for name in ("body", "orelse", "finalbody"):
                self.block(getattr(node, name, []), window)
        return window

    def _if(self, node: ast.If, window: frozenset[str]) -> frozenset[str]:
        self._expression(node.test, window)
        when_true, when_false = self._narrow(node.test, window)
        self.block(node.body, when_true)
        self.block(node.orelse, when_false)
        if isinstance(node.body[-1], _ENDS):
            return when_false
        if node.orelse and isinstance(node.orelse[-1], _ENDS):
            return when_true
        return window

    def _narrow(
        self, test: ast.expr, window: frozenset[str]
    ) -> tuple[frozenset[str], frozenset[str]]:
        """The versions in which a test can be true, and those in which it can be false."""
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            when_true, when_false = self._narrow(test.operand, window)
            return when_false, when_true
        if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
            for part in test.values:
                window = self._narrow(part, window)[0]
            return window, frozenset(versions())
        if isinstance(test, ast.Call) and _name(test.func) == "hasattr":
            path = self._literal_path(test)
            if path is not None:
                there = window & frozenset(present_in(path))
                return there, window - there
        return window, window

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, window: frozenset[str]
    ) -> None:
        outer = dict(self._kinds)
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            self._kinds.pop(one.arg, None)
            if one.annotation is not None and _name(one.annotation) == "Any":
                kind = PARAMETERS.get(one.arg)
                if kind is not None:
                    self._kinds[one.arg] = kind
        self.block(node.body, window)
        kept = {name: kind for name, kind in self._kinds.items() if name.startswith("self.")}
        self._kinds = {**outer, **kept}

    def _class(self, node: ast.ClassDef, window: frozenset[str]) -> None:
        for base in node.bases:
            self._expression(base, window)
            kind = self._class_named(base)
            if kind is not None:
                for one in node.body:
                    if isinstance(one, ast.FunctionDef) and not one.name.startswith("_"):
                        self._check(f"{kind}.{one.name}", one.lineno, window)
        self.block(node.body, window)

    def _import(self, node: ast.Import) -> None:
        for one in node.names:
            if one.name == "tensorrt":
                self._kinds[one.asname or one.name] = MODULE

    def _assign(self, node: ast.Assign | ast.AnnAssign) -> None:
        if isinstance(node, ast.AnnAssign) and _name(node.annotation) == "Any":
            name = _name(node.target) or ""
            bare = name.removeprefix("self.").lstrip("_")
            if name.startswith("self.") and bare in PARAMETERS:
                self._declared[name] = PARAMETERS[bare]
        if node.value is None:
            return
        kind = self._kind(node.value)
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            name = _name(target)
            if name is not None:
                self._kinds.pop(name, None)
                if kind is not None:
                    self._kinds[name] = kind

    def _expression(self, node: ast.expr, window: frozenset[str]) -> None:
        if isinstance(node, ast.IfExp):
            self._expression(node.test, window)
            when_true, when_false = self._narrow(node.test, window)
            self._expression(node.body, when_true)
            self._expression(node.orelse, when_false)
            return
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for part in node.values:
                self._expression(part, window)
                window = self._narrow(part, window)[0]
            return
        if isinstance(node, ast.Attribute):
            self._attribute(node, window)
        if isinstance(node, ast.Call):
            self._call(node, window)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, window)
            elif isinstance(child, (ast.comprehension, ast.keyword)):
                for inner in ast.iter_child_nodes(child):
                    if isinstance(inner, ast.expr):
                        self._expression(inner, window)

    def _attribute(self, node: ast.Attribute, window: frozenset[str]) -> None:
        if node.attr.startswith("_"):
            return
        path = self._path(node)
        if path is not None:
            self._check(path, node.lineno, window)
        elif node.attr in moving_names() - self._own_names:
            self._note(
                node.lineno, node.attr, "is not in all versions, on an object of no known type"
            )

    def _call(self, node: ast.Call, window: frozenset[str]) -> None:
        name = _name(node.func)
        if name in ("getattr", "hasattr") and self._owner(node.args[0]) is not None:
            self._probe(node, window)
        if name == "member" and len(node.args) == 3:
            parts = [_text(one) for one in node.args[1:]]
            if parts[0] is None:
                self._note(node.lineno, "member", "takes the enumeration's name as a literal")
            else:
                self._check(".".join(p for p in parts if p is not None), node.lineno, window)
        taker = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        literals = (one for one in node.args[:1] if isinstance(one, ast.Constant))
        if taker in _FLAG_TAKERS and any(isinstance(one.value, int) for one in literals):
            self._note(node.lineno, taker, "is given a plain integer, which moves between versions")

    def _probe(self, node: ast.Call, window: frozenset[str]) -> None:
        """`hasattr` and `getattr` on the binding: a literal that some version has, or a finding."""
        path = self._literal_path(node)
        if path is None:
            self._note(node.lineno, "getattr", "computes a name; only trt_capabilities.member may")
        elif _name(node.func) == "getattr" and len(node.args) == 2:
            self._check(path, node.lineno, window)
        elif not present_in(path):
            self._note(node.lineno, path, "is in no version")
        else:
            self.reached.add(path)

    def _check(self, path: str, line: int, window: frozenset[str]) -> None:
        self.reached.add(path)
        missing = [one for one in versions() if one in window and one not in present_in(path)]
        if missing:
            self._note(line, path, f"is missing in {', '.join(missing)}")

    def _note(self, line: int, path: str, reason: str) -> None:
        self.found.add(Finding(line, path, reason))

    def _path(self, node: ast.Attribute) -> str | None:
        """'Name' or 'Class.member' of an attribute of the binding."""
        owner = self._owner(node.value)
        if owner is None:
            return None
        return f"{owner}.{node.attr}" if owner else node.attr

    def _literal_path(self, call: ast.Call) -> str | None:
        owner, text = self._owner(call.args[0]), _text(call.args[1])
        if owner is None or text is None:
            return None
        return f"{owner}.{text}" if owner else text

    def _owner(self, node: ast.expr) -> str | None:
        """The module, or the class that an expression is or is an object of."""
        named = self._class_named(node)
        return self._kind(node) if named is None else named

    def _class_named(self, node: ast.expr) -> str | None:
        """'Builder' for the expression `trt.Builder`."""
        is_member = isinstance(node, ast.Attribute) and self._kind(node.value) == MODULE
        if is_member and isinstance(node, ast.Attribute) and node.attr[:1].isupper():
            return node.attr
        return None

    def _kind(self, node: ast.expr) -> str | None:
        """MODULE, the class of an object, or None for anything else."""
        name = _name(node)
        if name is not None:
            bare = name.removeprefix("self.")
            usual = MODULE if bare in _MODULE_NAMES else self._declared.get(name)
            return self._kinds.get(name, usual)
        if isinstance(node, ast.Call):
            return self._answer(node.func) or self._wrapped(node)
        return None

    def _answer(self, function: ast.expr) -> str | None:
        """The class that a constructor or a method of the binding gives."""
        if not isinstance(function, ast.Attribute):
            return None
        owner = self._kind(function.value)
        if owner == MODULE and function.attr[:1].isupper():
            return function.attr
        return RETURNS.get(f"{owner}.{function.attr}")

    def _wrapped(self, call: ast.Call) -> str | None:
        """What comes through `wrapper(object, ...)` or `wrapper(object.method, ...)`."""
        is_wrapper = _name(call.func) not in (None, "getattr", "bytes", "len", "str")
        if not is_wrapper or not call.args:
            return None
        return self._answer(call.args[0]) or self._kind(call.args[0])


def _name(node: ast.AST) -> str | None:
    """'x' or 'self.x'."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and _name(node.value) == "self":
        return f"self.{node.attr}"
    return None


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
