"""HTML as strings without any dependency: everything that is not `Markup` is escaped."""

from __future__ import annotations

import html

__all__ = ["Markup", "element", "escape"]


class Markup(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def escape(value: object) -> Markup:
    """Return the value as HTML text; `Markup` stays as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def element(tag: str, *content: object, **attributes: str) -> Markup:
    """Return `<tag ...>content</tag>`; `class_` is the attribute class, `_` becomes `-`."""
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    words = "".join(f' {name}="{html.escape(value, quote=True)}"' for name, value in pairs)
    return Markup(f"<{tag}{words}>{''.join(escape(item) for item in content)}</{tag}>")
