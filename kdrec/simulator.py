"""A stream whose truth is known: items are born and fade, tastes turn, labels are drawn from logits that are kept."""

import functools
from dataclasses import dataclass

import numpy as np

from kdrec.stream import DAY, Events

BLOCK = 4096  # events made together; part of the seed, since a block draws from a generator of its own
SEGMENTS, CATEGORIES, AGES = 8, 16, 12
EPOCH = 1_700_000_000 // DAY * DAY  # s; the midnight at which every simulation starts
BINARY = ("click", "like")
FEATURES = ("user", "item", "segment", "category", "hour", "age")


@dataclass(frozen=True)
class Simulator:
    """Drifting events with known truth.

    The logit of task k for user u and item i at event e is

        b_k + s <a_u cos w + c_u sin w, v_i> / sqrt(d) + q_ik + r_k[category of i, hour],   w = 2 pi e / turn,

    with normal a, c, v, q and r. Items shown at event e have an age that is exponential with the given half-life, and
    one new item is born every `birth` events, so that what is popular moves on. Memory grows with the number of users
    and items, not with that of events. `watch` adds a real task: minutes that are exponential with mean
    log(1 + e^x), x = s <...> / (2 sqrt(d)) + q'_i + r'[category of i, hour], of draws of its own: the other tasks stay.

    Attributes:
        events: N.
        users: number of users; the n-th is seen in proportion to 1/n.
        items: number of items at the start.
        birth: events between two new items.
        half_life: events after which an item is shown half as often.
        turn: events in which tastes turn once around.
        dimension: d.
        strength: s, the scale of taste.
        request: consecutive events that one user is shown together.
        daily: events of a day.
        watch: whether there is a real task.
        seed: of everything.
    """

    events: int
    users: int
    items: int
    birth: int
    half_life: float
    turn: float
    dimension: int
    strength: float
    request: int
    daily: int
    watch: bool
    seed: int

    features = FEATURES
    numeric = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """`[K]` names."""
        return (*BINARY, "watch") if self.watch else BINARY

    @property
    def real(self) -> tuple[bool, ...]:
        """`[K]` whether a task is real."""
        return (False, False, True)[: len(self.tasks)]

    def __post_init__(self) -> None:
        if BLOCK % self.request:
            raise ValueError(f"request must divide {BLOCK}, got {self.request}; take a power of two")

    def __len__(self) -> int:
        return self.events

    @property
    def catalogue(self) -> int:
        """Items that exist at the end of the stream."""
        return self.items + -(-self.events // self.birth)

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return int(self._offsets[-1])

    @functools.cached_property
    def _offsets(self) -> np.ndarray:
        return np.cumsum([0, self.users, self.catalogue, SEGMENTS, CATEGORIES, 24, AGES])

    @functools.cached_property
    def _world(self) -> dict[str, np.ndarray]:
        """Everything that does not depend on the event. A longer stream has the same users and first items."""
        draw = [np.random.default_rng([self.seed, purpose]) for purpose in range(7)]
        taste = draw[0].standard_normal((self.users, 2, self.dimension)).astype(np.float32)
        item = draw[1].standard_normal((self.catalogue, self.dimension)).astype(np.float32)
        tasks, watch = len(BINARY), np.random.default_rng([self.seed, 8])
        return {
            "watch": 0.7 * watch.standard_normal(self.catalogue).astype(np.float32),
            "pace": 0.5 * watch.standard_normal((CATEGORIES, 24)).astype(np.float32),
            "taste": taste,
            "item": item,
            "segment": _nearest(taste.reshape(self.users, -1), draw[2], SEGMENTS),
            "category": _nearest(item, draw[3], CATEGORIES),
            "quality": 0.7 * draw[4].standard_normal((self.catalogue, tasks)).astype(np.float32),
            "hours": 0.5 * draw[5].standard_normal((tasks, CATEGORIES, 24)).astype(np.float32),
            "order": draw[6].permutation(self.users),
        }

    def read(self, start: int, stop: int) -> Events:
        """Events `start` to `stop`, made anew by each call and always the same."""
        stop = max(start, min(stop, self.events))
        first = start // BLOCK
        blocks = [self._block(number) for number in range(first, max(first + 1, -(-stop // BLOCK)))]
        window = slice(start - first * BLOCK, stop - first * BLOCK)
        return Events(*(np.concatenate(parts)[window] for parts in zip(*blocks, strict=True)))

    def _block(self, number: int) -> Events:
        world, draw = self._world, np.random.default_rng([self.seed, 7, number])
        event = number * BLOCK + np.arange(BLOCK)
        rank = np.exp(draw.random(BLOCK // self.request) * np.log(self.users)).astype(np.int64) - 1
        user = np.repeat(world["order"][np.minimum(rank, self.users - 1)], self.request)
        age = draw.exponential(self.half_life / np.log(2), BLOCK)
        born = np.floor((event - age) / self.birth).astype(np.int64)
        born = np.where(born < -self.items, -1 - born % self.items, born)
        item = np.minimum(born + self.items, self.catalogue - 1)
        time = EPOCH + (event // self.request * self.request) * DAY // self.daily
        hour = time // 3600 % 24
        old = np.clip(np.log2(np.maximum(event / self.birth - (item - self.items), 1)), 0, AGES - 1).astype(np.int64)
        match = self._match(event, user, item)
        truth = self._truth(match, item, hour)
        labels = (draw.random(truth.shape) < 1 / (1 + np.exp(-truth))).astype(np.float32)
        if self.watch:
            mean = np.logaddexp(0, match / 2 + world["watch"][item] + world["pace"][world["category"][item], hour])
            came = mean * np.random.default_rng([self.seed, 9, number]).exponential(size=BLOCK)
            truth, labels = (np.column_stack([a, b]).astype(np.float32) for a, b in ((truth, mean), (labels, came)))
        ids = np.stack([user, item, world["segment"][user], world["category"][item], hour, old], axis=1)
        return Events(
            time, (ids + self._offsets[:-1]).astype(np.int32), np.zeros((BLOCK, 0), np.float32), labels, truth
        )

    def _match(self, event: np.ndarray, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        world, angle = self._world, 2 * np.pi * event / self.turn
        turned = (world["taste"][user] * np.stack([np.cos(angle), np.sin(angle)], 1)[:, :, None]).sum(1)
        return self.strength * (turned * world["item"][item]).sum(1) / np.sqrt(self.dimension)

    def _truth(self, match: np.ndarray, item: np.ndarray, hour: np.ndarray) -> np.ndarray:
        world = self._world
        context = world["hours"][:, world["category"][item], hour].T
        return (np.array([-0.5, -1.5]) + match[:, None] + world["quality"][item] + context).astype(np.float32)


def _nearest(vectors: np.ndarray, draw: np.random.Generator, count: int) -> np.ndarray:
    """Number of the random direction that each vector points along best: a coarse, visible trace of what is hidden."""
    return (vectors @ draw.standard_normal((vectors.shape[1], count)).astype(np.float32)).argmax(1)
