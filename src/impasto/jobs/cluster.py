"""Workers on the machines of a Ray cluster: the calls are those of `workers`, the machine is not.

Ray starts the processes, finds machines and notices deaths. All else is as on one machine: `Jobs`
and `Batcher` keep what waits and what is finished here, and get their workers from
`Cluster.start`. So a picture lands here as soon as it is painted, and when this process is killed,
only what was being painted is lost.

Ray comes with `pip install 'impasto[cluster]'`, and is imported only when a cluster is joined.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import pkgutil
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from impasto import __version__
from impasto.errors import LOGGER, ImpastoError, notice, reason_of, told_of
from impasto.jobs.workers import Collected, Defect, Died, Hung, Notices, Wish, machine_cores, made

LOCAL = "local"
"""In place of an address: begin Ray on this machine alone."""

_PAUSE = 0.05  # seconds between two looks at the wish
_LISTENED = 2.0  # seconds that a worker lets us wait for its next event
_PATIENCE = 20.0  # seconds for a worker to begin, before another machine is asked
_REACHED = 5.0  # seconds for the head of a cluster to answer

# For Ray, which reads them when it is imported. What is set already stays.
CHOICES = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would report to its makers
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # and that it is not to, still
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a late call would begin a cluster on every interface
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, it would install everything anew
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning about GPUs, at each worker
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # all of it: it would tell of deaths on standard output
}

# And where it begins here: from 2.60 on it writes its token into a file that everyone can read.
CHOICES_HERE = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


# And where the cluster is on loopback: Ray would look for its head at this machine's other address.
CHOICES_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Machine:
    """A machine of the cluster, with the CPUs and GPUs that Ray counts there."""

    id: str
    name: str
    cpus: float
    gpus: float


class Cluster:
    """A Ray cluster that this process has joined.

    address: `host:port` of its head, where this machine belongs to it; `ray://host:port` from
    outside; `auto` for the cluster of this machine; `local` to begin Ray on this machine alone,
    where it listens on 127.0.0.1 only.

    Raises:
        ImpastoError: Ray is not installed, or the cluster cannot be joined; the text says why.
    """

    def __init__(self, address: str) -> None:
        self.ray = _joined(address)
        self._lock = threading.Lock()
        self._places: dict[RemoteWorker, str] = {}  # the machine of each worker
        self._unfit: dict[str, str] = {}  # machines where none can begin, with the sentence

    @property
    def machines(self) -> list[Machine]:
        """The machines that are alive and have a CPU to give."""
        known = [
            Machine(
                node["NodeID"],
                node["NodeManagerAddress"],
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
            )
            for node in self.ray.nodes()
            if node["Alive"]
        ]
        return [machine for machine in known if machine.cpus >= 1]

    @property
    def count(self) -> int:
        """How many workers to begin by default: one for each machine."""
        return max(1, len(self.machines))

    def start(self, each: int = 1) -> RemoteWorker:
        """A worker, which begins at its first call, on the machine with the fewest.

        each: how many share a machine. A worker takes that part of its CPUs from Ray, computes
        with as many threads, and has that part of a GPU, if there is one. If more are started than
        fit, they wait until a machine has room.
        """
        return RemoteWorker(self, each)

    def close(self) -> None:
        """Leave the cluster; its workers end. One that is `local` ends itself."""
        self.ray.shutdown()

    def placed(self, worker: RemoteWorker, left: str) -> Machine | None:
        """The machine for a worker, rather not the one it has `left`; None if none is alive.

        Raises:
            ImpastoError: none can have it.
        """
        machines = self.machines
        with self._lock:
            taken = [place for other, place in self._places.items() if other is not worker]
            fit = [machine for machine in machines if machine.id not in self._unfit]
            if not machines:
                return None
            if not fit:
                raise ImpastoError(next(iter(self._unfit.values())))
            best = min(fit, key=lambda each: (each.id == left, taken.count(each.id), each.name))
            self._places[worker] = best.id
            return best

    def place(self, worker: RemoteWorker) -> str:
        """The id of the machine of a worker; empty if it has none."""
        with self._lock:
            return self._places.get(worker, "")

    def gone(self, worker: RemoteWorker) -> str:
        """A worker has left its machine, whose id is returned."""
        with self._lock:
            return self._places.pop(worker, "")

    def unfit(self, machine: Machine, reason: str) -> None:
        """No worker can begin on a machine; none is tried there again."""
        sentence = (
            f"the machine {machine.name} of the cluster cannot paint ({reason}); install the same "
            "impasto there"
        )
        with self._lock:
            is_new = machine.id not in self._unfit
            self._unfit[machine.id] = sentence
        if is_new:
            notice(sentence)


class RemoteWorker:
    """A process on a machine of a cluster; see `workers.Runs`.

    When it dies, or its machine, the next call begins a new one, elsewhere if it can.
    """

    is_here = False

    def __init__(self, cluster: Cluster, each: int = 1) -> None:
        self._cluster, self._each = cluster, each
        self._actor: Any = None
        self._left = ""  # the machine of the last that died
        self._number = 0
        self._closed = False

    @property
    def actor(self) -> Any:
        """Ray's handle of the process, while there is one."""
        return self._actor

    @property
    def place(self) -> str:
        """Ray's id of the machine that it is on, or is to be on; empty if there is none."""
        return self._cluster.place(self)

    def run(
        self,
        call: str,
        *arguments: Any,
        hear: Callable[[Any], None] = lambda _: None,
        wish: Callable[[], Wish] = lambda: "",
        seconds: float | None = None,
    ) -> tuple[Any, Notices]:
        """Make a call; see `Runs.run`. `seconds` begin when there is a worker."""
        ray = self._cluster.ray
        if self._closed:
            raise Died("the worker is closed")
        try:
            actor = self._actor or self._start(wish)
            kind, value, notices = self._call(actor, (call, arguments), hear, wish, seconds)
        except ray.exceptions.RayTaskError as error:  # a result that cannot be sent, say
            self._end()
            raise Defect(told_of("it", error)) from None
        except (ray.exceptions.RayError, ConnectionError) as error:
            self._end()
            raise Died(f"it died ({reason_of(error)})") from None
        except BaseException:  # of `hear`: the call is of no use any more
            self._end()
            raise
        if kind == "done":
            return value, notices
        raise (ImpastoError if kind == "refused" else Defect)(value)

    def close(self) -> None:
        """End the process at once."""
        self._closed = True
        self._end()

    def _call(
        self,
        actor: Any,
        call: tuple[str, tuple[Any, ...]],
        hear: Callable[[Any], None],
        wish: Callable[[], Wish],
        seconds: float | None,
    ) -> tuple[str, Any, Notices]:
        ray = self._cluster.ray
        self._number += 1
        number = self._number
        until = math.inf if seconds is None else time.monotonic() + seconds
        told: Wish = ""
        result = actor.make.remote(number, *call)
        events = actor.listen.remote(number, _LISTENED)
        while time.monotonic() < until:
            if self._closed:
                raise Died("the worker is closed")
            if (wished := wish()) != told:
                told = wished
                actor.wish.remote(number, told)
            ready, _ = ray.wait([events, result], timeout=_PAUSE)
            # `wait` gives one of them, and once the call is over, `listen` answers at once.
            if ray.wait([result], timeout=0)[0]:
                answer: tuple[str, Any, Notices] = ray.get(result)
                for event in ray.get(events):  # the last ones
                    hear(event)
                return answer
            if events in ready:
                for event in ray.get(events):
                    hear(event)
                events = actor.listen.remote(number, _LISTENED)
        raise Hung("it took too long")

    def _start(self, wish: Callable[[], Wish]) -> Any:
        """Begin a process; it waits for as long as no machine has room."""
        patience = _PATIENCE
        while True:
            machine = self._cluster.placed(self, self._left)
            if machine is None:
                self._wait(wish)
                continue
            self._actor = _begun(self._cluster.ray, machine, self._each)
            try:
                if self._is_fit(machine, self._actor.begin.remote(), wish, patience):
                    return self._actor
            except TimeoutError:
                notice(f"{machine.name} has no room for a worker yet; it goes on when there is")
                patience *= 2
            self._end()

    def _wait(self, wish: Callable[[], Wish]) -> None:
        """Wait a little for a machine; that there is none is no death."""
        notice("no machine of the cluster is alive; the work waits for one")
        if self._closed or wish():
            raise Died("it has not begun")
        time.sleep(1)

    def _is_fit(
        self, machine: Machine, version: Any, wish: Callable[[], Wish], seconds: float
    ) -> bool:
        """Whether a process has begun on a machine and has this impasto."""
        ray, until = self._cluster.ray, time.monotonic() + seconds
        while not ray.wait([version], timeout=_PAUSE)[0]:
            if self._closed or wish():
                raise Died("it has not begun")
            if time.monotonic() > until:
                raise TimeoutError
        try:
            found, reason = ray.get(version)
        except ray.exceptions.RayError:  # the machine died, and Ray finds out in some seconds
            time.sleep(1)
            return False
        if found != __version__:
            own = f"it has impasto {found}, and this machine has {__version__}"
            self._cluster.unfit(machine, reason or own)
        return bool(found == __version__)

    def _end(self) -> None:
        actor, self._actor = self._actor, None
        if actor is None:
            return
        self._left = self._cluster.gone(self)
        with contextlib.suppress(Exception):  # it is dead, or Ray has ended
            self._cluster.ray.kill(actor)


def _begun(ray: Any, machine: Machine, each: int) -> Any:
    """A process on a machine, or to be there when it has room for it."""

    # Ray sends a class of a function whole. So it begins where there is no impasto, and says so.
    class Painter:
        def begin(self) -> tuple[str, str]:
            try:
                version = pkgutil.resolve_name("impasto:__version__")
                self.serving = pkgutil.resolve_name("impasto.jobs.cluster:Serving")()
            except Exception as error:
                return "", f"{type(error).__name__}: {error}"
            return version, ""

        @ray.method(concurrency_group="calls")  # type: ignore[untyped-decorator]
        def make(self, *call: Any) -> Any:
            return self.serving.make(*call)

        @ray.method(concurrency_group="talk")  # type: ignore[untyped-decorator]
        def listen(self, number: int, seconds: float) -> Any:
            return self.serving.listen(number, seconds)

        @ray.method(concurrency_group="talk")  # type: ignore[untyped-decorator]
        def wish(self, number: int, wish: Wish) -> None:
            self.serving.wish(number, wish)

    cpus, gpus = machine.cpus / each, min(1.0, machine.gpus / each)
    threads = max(1, math.floor(cpus))
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    options = {
        "num_cpus": _part(cpus),
        "num_gpus": _part(gpus),
        "concurrency_groups": {"calls": 1, "talk": 4},
        "max_restarts": 0,
        # Set before torch is imported, and for good: Ray's own setting comes and goes with calls.
        "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        "scheduling_strategy": strategies.NodeAffinitySchedulingStrategy(machine.id, soft=False),
    }
    return ray.remote(**options)(Painter).remote()


def _part(amount: float) -> float:
    """An amount as Ray takes it: a whole number, or less than one in four decimals."""
    return float(math.floor(amount)) if amount >= 1 else math.floor(amount * 1e4) / 1e4


class Serving:
    """What a worker's process does, on whatever machine it is."""

    def __init__(self) -> None:
        for name in ("SIGINT", "SIGHUP"):  # the terminal's, and for whoever joined the cluster
            if number := getattr(signal, name, None):
                with contextlib.suppress(ValueError):  # not the main thread
                    signal.signal(number, signal.SIG_IGN)
        self._collected = Collected()
        LOGGER.addHandler(self._collected)
        LOGGER.propagate = False
        self._lock = threading.Lock()
        self._last = _Call(0)

    def make(self, number: int, call: str, arguments: tuple[Any, ...]) -> tuple[str, Any, Notices]:
        """Make a call; see `made`."""
        own = self._call(number)
        self._collected.notices = []
        try:
            kind, value = made(call, arguments, own.tell)
        finally:
            own.end()
        return kind, value, self._collected.notices

    def listen(self, number: int, seconds: float) -> list[Any]:
        """The events of a call since the last time; waits for one, until the call ends."""
        return self._call(number).listen(seconds)

    def wish(self, number: int, wish: Wish) -> None:
        """What a call should do from now on."""
        self._call(number).wish = wish

    def _call(self, number: int) -> _Call:
        """The call with a number, which may be about to begin, or over."""
        with self._lock:
            if number > self._last.number:
                self._last = _Call(number)
            return self._last if number == self._last.number else _Call(number, is_over=True)


class _Call:
    """A call: its events, and what is wished of it."""

    def __init__(self, number: int, is_over: bool = False) -> None:
        self.number, self.is_over = number, is_over
        self.wish: Wish = ""
        self._events: list[Any] = []
        self._changed = threading.Condition()

    def tell(self, event: Any) -> Wish:
        """The `Tell` of the call."""
        if event is not None:
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
        return self.wish

    def listen(self, seconds: float) -> list[Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._events or self.is_over, seconds)
            events, self._events = self._events, []
        return events

    def end(self) -> None:
        with self._changed:
            self.is_over = True
            self._changed.notify_all()


def _joined(address: str) -> Any:
    """Ray, after it has joined a cluster."""
    for name, value in CHOICES.items():
        os.environ.setdefault(name, value)
    ways: dict[str, Any] = {"address": address}
    if address == LOCAL or address.startswith(("127.", "localhost:")):
        for name, value in CHOICES_LOOPBACK.items():
            os.environ.setdefault(name, value)
    if address == LOCAL:
        for name, value in CHOICES_HERE.items():
            os.environ.setdefault(name, value)
        ways |= {
            "_node_ip_address": "127.0.0.1",  # it would listen on every interface
            "include_dashboard": False,
            "num_cpus": machine_cores(),
        }
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise ImpastoError(
            "--cluster needs Ray; install it with: pip install 'impasto[cluster]'"
        ) from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    _check_reached(address)
    try:
        with _own_signals(), _unreachable() if address == LOCAL else contextlib.nullcontext():
            ray.init(**ways, log_to_driver=False, logging_level=logging.ERROR)
            ray.put(None)  # makes what sends objects; two threads that begin it break each other
    except Exception as error:
        if "ersion mismatch" in str(error):
            told = ", ".join(line.strip() for line in str(error).splitlines()[1:] if line.strip())
            raise ImpastoError(
                f"the cluster at {address} has another Ray or Python ({told}); install the same"
            ) from None
        raise ImpastoError(
            f"the cluster at {address} cannot be joined ({reason_of(error)}); begin Ray on this "
            "machine first, with: ray start --address=..."
        ) from None
    return ray


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray answers SIGTERM by itself; what answered it before does so again."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


@contextlib.contextmanager
def _unreachable() -> Iterator[None]:
    """Processes that begin now reach no other host by HTTP.

    Ray asks the metadata services of three clouds whether it runs there, also when it is not to
    report its usage.
    """
    before = os.environ.get("http_proxy")
    os.environ["http_proxy"] = "http://127.0.0.1:9"  # where nothing answers
    try:
        yield
    finally:
        if before is None:
            del os.environ["http_proxy"]
        else:
            os.environ["http_proxy"] = before


def _check_reached(address: str) -> None:
    """Raise an `ImpastoError` if no head answers; Ray itself would try for a minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host and port in (LOCAL, "auto"):
        return
    if not host or not port.isdigit():
        raise ImpastoError(f"--cluster is {address!r}; give host:port, ray://host:port or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED).close()
    except (OSError, OverflowError) as error:
        raise ImpastoError(
            f"no cluster answers at {address} ({error}); check the address, and that Ray runs there"
        ) from None
