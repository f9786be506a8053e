"""What the operator believes the cluster looks like: one store a kind, fed by watch events and by its own writes.

Three things go wrong with a mirror that is fed by watches alone, and each has its answer here. Old news: the event of
a state that our own write already replaced arrives later, so what has an older resourceVersion is dropped. Lost
deletions: kopf tells nothing of objects that vanished while a watch was broken, so each store is compared with a
metadata LIST. Early judgement: a decision on half of the objects would train what was trained long ago, so a store
says when it has everything that the first LIST named.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

    from fiduciary.clients.kube import Body, Resource

V = TypeVar("V")
Name = tuple[str, str]  # (namespace, name); the namespace is "" for cluster-scoped objects

#: UIDs of deleted objects that are remembered, so that a late answer to an own write does not bring one back.
TOMBSTONES = 4096


class Change(enum.Enum):
    """What an observation did to the store."""

    NEW = "new"
    CHANGED = "changed"
    GONE = "gone"
    SAME = "same"  # what we have: an echo of our own write, a relist, or a change of what no decision reads
    STALE = "stale"  # older than what we have, or an object that we know to be deleted

    @property
    def matters(self) -> bool:
        return self in (Change.NEW, Change.CHANGED, Change.GONE)


class Entry(Generic[V]):
    """One object: identity, version, and its body or its projection.

    A body that rests is packed: as JSON text it takes 2 KiB, where the parsed model takes 17. An operator of ten
    thousand models parses what it looks at and keeps text of the rest.
    """

    __slots__ = ("body", "index", "parent", "says", "uid", "value", "version")

    def __init__(self, uid: str, version: int, *, body: Body | str | None = None, value: V | None = None) -> None:
        self.uid = uid
        self.version = version
        self.parent: Hashable = None
        self.index: tuple[Hashable, ...] = ()
        self.says: Hashable = None
        self.body = body
        self.value = value

    def unpacked(self) -> Body | None:
        return json.loads(self.body) if isinstance(self.body, str) else self.body

    def pack(self) -> None:
        if self.body is not None and not isinstance(self.body, str):
            self.body = json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a metadata LIST."""

    name: Name
    uid: str
    version: int


class Store(Generic[V]):
    """All objects of one kind.

    ``project`` makes the value that readers get. ``keep`` trims the body that is kept and projected when somebody asks
    (``None``: the projection is made at once, and kept); one value is handed out as long as anybody holds it.
    ``parent`` and ``index`` name what :meth:`of` and :meth:`indexed` find objects by. ``tally`` is told of each value
    that goes and comes: for sums over all objects that nobody could add up at each look. ``says`` is what an object
    says of itself in a word or two: :attr:`said` counts how many say what.
    """

    def __init__(
        self,
        resource: Resource,
        project: Callable[[Body], V],
        *,
        keep: Callable[[Body], Body] | None = None,
        parent: Callable[[Body], Hashable] = lambda body: None,
        index: Callable[[Body], tuple[Hashable, ...]] = lambda body: (),
        tally: Callable[[V | None, V | None], None] = lambda gone, come: None,
        says: Callable[[Body], Hashable] = lambda body: None,
    ) -> None:
        self.resource = resource
        self.synced = False
        self.last_event: float | None = None
        self._project = project
        self._keep = keep
        self._parent = parent
        self._index = index
        self._tally = tally
        self._says = says
        self.said: Counter[Hashable] = Counter()
        self._entries: dict[Name, Entry[V]] = {}
        # Lists: mostly of one or two names, where a dictionary or a set would weigh as much as the object.
        self._by_parent: dict[Hashable, list[Name]] = {}
        self._by_index: dict[Hashable, list[Name]] = {}
        #: What was parsed and is in use somewhere: one reconcile looks at an object several times.
        self._parsed: WeakValueDictionary[Name, Any] = WeakValueDictionary()
        self._pending: dict[Name, int] | None = None
        self._tombstones: dict[str, int | None] = {}  # UID -> version of the deletion, where it is known

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Name) -> V | None:
        entry = self._entries.get(name)
        return None if entry is None else self._value(name, entry)

    def body(self, name: Name) -> Body | None:
        """The kept body, of a store that keeps bodies; None also while only the result of an own write is known."""
        entry = self._entries.get(name)
        return None if entry is None else entry.unpacked()

    def version(self, name: Name) -> int:
        """resourceVersion of what we have, 0 where we have nothing."""
        entry = self._entries.get(name)
        return 0 if entry is None else entry.version

    def names(self) -> Iterator[Name]:
        return iter(tuple(self._entries))

    def values(self) -> Iterator[V]:
        return (self._value(name, entry) for name, entry in tuple(self._entries.items()))

    def of(self, parent: Hashable) -> list[V]:
        """Objects whose parent is this one."""
        return [self._value(name, self._entries[name]) for name in self._by_parent.get(parent, ())]

    def count(self, parent: Hashable) -> int:
        """How many objects have this parent; none of them is parsed."""
        return len(self._by_parent.get(parent, ()))

    def versions(self, parent: Hashable) -> tuple[tuple[Name, int], ...]:
        """Which objects have this parent, and in which version; none of them is parsed."""
        return tuple((name, self._entries[name].version) for name in self._by_parent.get(parent, ()))

    def indexed(self, index: Hashable) -> list[Name]:
        """Names of the objects that have this index value."""
        return list(self._by_index.get(index, ()))

    def index_of(self, name: Name) -> tuple[Hashable, ...]:
        entry = self._entries.get(name)
        return () if entry is None else entry.index

    def parent_of(self, name: Name) -> Hashable:
        entry = self._entries.get(name)
        return None if entry is None else entry.parent

    def put(self, body: Body, *, pack: bool = True) -> Change:
        """Take in a whole object: from a watch, a LIST, or the answer to an own write.

        ``pack`` off: somebody will look at it soon, so it is packed by its next echo or by :meth:`pack`.
        """
        metadata = body["metadata"]
        name, uid, version = name_of(metadata), str(metadata["uid"]), int(metadata["resourceVersion"])
        change = self._judge(name, uid, version)
        if change is Change.STALE:
            return change
        if self._keep is not None:
            entry: Entry[V] = Entry(uid, version, body=self._keep(body))
            if pack or change is Change.SAME:
                entry.pack()
        else:
            entry = Entry(uid, version, value=self._project(body))
            before = self._entries.get(name)
            if change is Change.CHANGED and before is not None and (before.uid, before.value) == (uid, entry.value):
                change = Change.SAME
        entry.says = self._says(body)
        self._place(name, entry, self._parent(body), self._index(body))
        return change

    def put_value(self, metadata: Mapping[str, str], value: V) -> None:
        """Take in the result of an own write whose answer held the metadata alone."""
        name, uid, version = name_of(metadata), metadata["uid"], int(metadata["resourceVersion"])
        if self._judge(name, uid, version) is Change.STALE:
            return
        before = self._entries.get(name)
        parent, index = (None, ()) if before is None else (before.parent, before.index)
        entry = Entry(uid, version, value=value)
        entry.says = None if before is None else before.says  # until the echo brings the body
        self._place(name, entry, parent, index)

    def remove(self, name: Name, uid: str, version: int | None = None) -> Change:
        """The object was deleted. ``version`` is that of the deletion where it is known."""
        self._settle(name, version)
        if uid:
            self._bury(uid, version)
        entry = self._entries.get(name)
        if entry is None or (uid and entry.uid != uid) or (version is not None and version < entry.version):
            return Change.STALE
        self._unlink(name, entry)
        return Change.GONE

    def pack(self) -> None:
        """Pack what rests unpacked: changed objects whose reconcile wrote nothing."""
        for entry in self._entries.values():
            entry.pack()

    def expect(self, listed: Iterable[Listed]) -> None:
        """The first LIST: the store is synced once everything in it has arrived."""
        self._pending = {item.name: item.version for item in listed if self.version(item.name) < item.version}
        self.synced = self.synced or not self._pending

    def compare(self, listed: Iterable[Listed], at: int) -> tuple[list[tuple[Name, str]], list[Name]]:
        """Compare with a LIST that was taken at resourceVersion ``at``.

        Returns what we have and the cluster has not (name and UID), and what the cluster has and we have not, or have
        in an older version. Entries newer than the LIST are no phantoms: they came in while it was read.
        """
        there = {item.name: item for item in listed}
        phantoms = [
            (name, entry.uid)
            for name, entry in self._entries.items()
            if (name not in there or there[name].uid != entry.uid) and entry.version <= at
        ]
        missing = [name for name, item in there.items() if self.version(name) < item.version and not self._buried(item)]
        return phantoms, missing

    def clear(self) -> None:
        """The cluster no longer has the kind; nothing of it is known until it is listed anew."""
        for name, entry in tuple(self._entries.items()):
            self._unlink(name, entry)
        self._tombstones.clear()
        self._pending = None
        self.synced = False

    def _buried(self, item: Listed) -> bool:
        if item.uid not in self._tombstones:
            return False
        deleted = self._tombstones[item.uid]
        return deleted is None or item.version <= deleted

    def _value(self, name: Name, entry: Entry[V]) -> V:
        if entry.body is None:
            return cast("V", entry.value)
        value = self._parsed.get(name)
        if value is None:
            value = self._parsed[name] = self._project(cast("Body", entry.unpacked()))
        return value

    def _judge(self, name: Name, uid: str, version: int) -> Change:
        self._settle(name, version)
        if uid in self._tombstones:
            deleted = self._tombstones[uid]
            if deleted is None or version <= deleted:
                return Change.STALE
            del self._tombstones[uid]  # it only lost the label that we watch it by, and has it again
        entry = self._entries.get(name)
        if entry is None:
            return Change.NEW
        if version < entry.version:
            return Change.STALE
        if entry.uid != uid:
            self._bury(entry.uid, None)  # deleted and made anew; the deletion was lost
            return Change.CHANGED
        return Change.SAME if version == entry.version else Change.CHANGED

    def _place(self, name: Name, entry: Entry[V], parent: Hashable, index: tuple[Hashable, ...]) -> None:
        before = self._entries.get(name)
        self._tally(None if before is None else before.value, entry.value)
        self._count(None if before is None else before.says, entry.says)
        entry.parent, entry.index = parent, index
        self._entries[name] = entry
        self._parsed.pop(name, None)
        if before is not None:
            if (before.parent, before.index) == (parent, index):
                return
            self._forget(name, before)
        if parent is not None:
            self._by_parent.setdefault(parent, []).append(name)
        for value in index:
            self._by_index.setdefault(value, []).append(name)

    def _unlink(self, name: Name, entry: Entry[V]) -> None:
        self._tally(entry.value, None)
        self._count(entry.says, None)
        del self._entries[name]
        self._parsed.pop(name, None)
        self._forget(name, entry)

    def _count(self, gone: Hashable, come: Hashable) -> None:
        if gone == come:
            return
        for word, step in ((gone, -1), (come, 1)):
            if word is not None:
                self.said[word] += step
                if not self.said[word]:
                    del self.said[word]

    def _forget(self, name: Name, entry: Entry[V]) -> None:
        """Nobody finds the object by its parent or index any more."""
        for table, key in ((self._by_parent, entry.parent), *((self._by_index, value) for value in entry.index)):
            group = table.get(key)
            if group is not None:
                group.remove(name)
                if not group:
                    del table[key]

    def _settle(self, name: Name, version: int | None) -> None:
        if self._pending is None:
            return
        expected = self._pending.get(name)
        if expected is not None and (version is None or version >= expected):
            del self._pending[name]
        if not self._pending:
            self.synced = True
            self._pending = None

    def _bury(self, uid: str, version: int | None) -> None:
        self._tombstones[uid] = version
        if len(self._tombstones) > TOMBSTONES:
            del self._tombstones[next(iter(self._tombstones))]


def name_of(metadata: Mapping[str, str]) -> Name:
    # One copy of what thousands of objects repeat; the name of a Deployment is that of its Service, too.
    return intern(metadata.get("namespace", "")), intern(metadata["name"])


def listed(items: Iterable[Body]) -> list[Listed]:
    """Lines of a metadata LIST."""
    result: list[Listed] = []
    for item in items:
        metadata = item["metadata"]
        result.append(Listed(name_of(metadata), str(metadata["uid"]), int(metadata["resourceVersion"])))
    return result
