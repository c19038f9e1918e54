"""Import once, fork kernels on request (Linux; a script, run by a kernelspec's own interpreter).

    PYTHON [FLAG...] zygote.py CONTROL_FD

`forkserver.py` is at the other end of the control socket. What goes through it, one JSON object each:

    <- prepare  preload, arguments      what to import, and the usual command line of a kernel
    -> importing  module                a module is being imported
    -> unfit  modules                   some must not be; the process ends, to be started without them
    -> ready  watched, notes            files and folders that, once changed, make this process outdated
    -> broken  reason                   the process ends: no kernel can be forked here
    <- fork  id, arguments, ...         a kernel, please (and a descriptor for its output)
    -> forked  id, pid (and a pidfd)    its shim, a child of this process
    -> failed  id, reason
    -> ended  pid, status               as `waitpid` says
    <- retire                           end with the last kernel

Each kernel is two processes: a shim, which is `shim.py` with a function in place of a command, and below it
the kernel: an unmodified `IPKernelApp`, of which some parts have been built before the fork. Whatever is odd
about this interpreter's IPython, the kernel does without those parts.

Of this package, the interpreter need not know anything: only the standard library and ipykernel are used.
"""

# This script knows the insides of the interpreter and of ipykernel, and is careful not to import much.
# ruff: noqa: PTH100, PTH109, PTH112, PTH115, PTH118, PTH120, PTH123, PTH208, SLF001

from __future__ import annotations

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import io
import itertools
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What stands for the path of the connection file in a command line that is known ahead.
CONNECTION_FILE = "{connection_file}"
#: Bytes that a message may have.
MAX_MESSAGE = 131072
#: Seconds that a trial may take.
PATIENCE = 30.0
#: Packages of which a kernel's own start imports modules late: those may be imported early.
OWN_PACKAGES = frozenset(
    (
        *("IPython", "asttokens", "backcall", "comm", "debugpy", "decorator", "executing", "ipykernel"),
        *("ipython_pygments_lexers", "jedi", "jupyter_client", "jupyter_core", "matplotlib_inline"),
        *("nest_asyncio", "parso", "pexpect", "pickleshare", "platformdirs", "prompt_toolkit", "psutil"),
        *("ptyprocess", "pure_eval", "pygments", "stack_data", "tornado", "traitlets", "wcwidth", "zmq"),
    )
)
#: Parts of the shell's construction that belong to one kernel, in the order in which it makes them.
SHELL_LATE = ("init_environment", "save_sys_module_state", "init_sys_modules", "init_history", "init_user_ns")
#: Steps of the application's own start that are done when it has been prepared.
APP_DONE = (
    "parse_command_line",
    "init_profile_dir",
    "init_config_files",
    "load_config_file",
    "update_config",
)

#: What has pyarrow's allocator start no thread, and the variable that it reads when it is loaded.
ALLOCATOR, NO_THREAD = "JE_ARROW_MALLOC_CONF", "background_thread:false"

OUR_FOLDER = os.path.dirname(os.path.abspath(__file__))
#: Where a kernel object keeps what these files compile to, by their texts: every run sends it the same.
COMPILED = "jupyter_nbexec_compiled"
SENT_LATER = ("in_kernel.py", "steward.py")


class Broken(Exception):
    """No kernel can be forked from this process."""


def load_shim() -> types.ModuleType:
    """Load `shim.py`, from beside this file, without a trace in `sys.modules`."""
    spec = importlib.util.spec_from_file_location("shim", os.path.join(OUR_FOLDER, "shim.py"))
    if spec is None or spec.loader is None:
        raise Broken("shim.py is missing")
    module = importlib.util.module_from_spec(spec)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = writes
    return module


# ---------------------------------------------------------------------------------- modules


def imported_names() -> set[str]:
    """Names of what is imported."""
    return set(sys.modules)


def open_files() -> dict[str, str]:
    """Open file descriptors with what they lead to, but for the one that reads this list."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return {name: target for name, target in found.items() if not target.startswith("/proc/")}


def is_writable(descriptor: str) -> bool:
    """Whether a descriptor was opened to be written to."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
        flags = next(line for line in file if line.startswith("flags:"))
    return bool(int(flags.split()[1], 8) & os.O_ACCMODE)


def count_tasks() -> int:
    """How many threads the operating system sees in this process."""
    return len(os.listdir("/proc/self/task"))


def count_lasting_tasks(expected: int = 1) -> int:
    """How many of them are left after a fork: BLAS libraries end theirs before one, and start them anew."""
    if count_tasks() > expected:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are threads is what is to be found out
            pid = os.fork()
            if pid == 0:
                os._exit(0)
        os.waitpid(pid, 0)
    # A thread that has just ended may be seen for a moment.
    deadline = time.monotonic() + 0.5
    while count_tasks() > expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return count_tasks()


class ThreadStarts:
    """Notes which modules start threads that outlast a fork, while they are imported."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}
        self._bootstrap: Any = importlib.import_module("importlib._bootstrap")
        self._load = self._bootstrap._load_unlocked
        self._number = count_tasks()

    def __enter__(self) -> ThreadStarts:
        self._bootstrap._load_unlocked = self._load_and_look
        return self

    def __exit__(self, *_: object) -> None:
        self._bootstrap._load_unlocked = self._load

    def blame(self, module: str, known: set[str]) -> str:
        """Name who has started threads when a module was imported, and these, by Python's names for them."""
        names = [name for name in self.found if name != module]
        threads = known or {thread for each in self.found.values() for thread in each}
        told = f" ({', '.join(sorted(threads))})" if threads else " of its own"
        return f"{', '.join(names) or 'it'} starts threads{told}"

    def _load_and_look(self, spec: Any) -> Any:
        before, modules = task_names(), len(self.found)
        self._number = min(self._number, count_tasks())
        try:
            return self._load(spec)
        finally:
            # Those that it imports itself have been looked at before.
            if count_tasks() > self._number:
                number = count_lasting_tasks(self._number)
                if number > self._number and len(self.found) == modules:
                    self.found[spec.name] = sorted(task_names() - before)
                self._number = number


def task_names() -> set[str]:
    """Names of threads, but for those named after the program."""
    names = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    with open("/proc/self/comm", encoding="utf-8") as file:
        return set(names) - {file.read().strip()}


@contextlib.contextmanager
def without_allocator_thread() -> Iterator[None]:
    """Have pyarrow's allocator, if it is loaded meanwhile, do its work without a thread of its own."""
    own = os.environ.get(ALLOCATOR)
    os.environ[ALLOCATOR] = NO_THREAD if own is None else f"{own},{NO_THREAD}"
    try:
        yield
    finally:
        if own is None:
            del os.environ[ALLOCATOR]
        else:
            os.environ[ALLOCATOR] = own


class IdleThreads:
    """Threads of modules that can end them, and start them anew: what a fork would leave them without."""

    def __init__(self) -> None:
        self._numexpr = 0

    def end(self) -> None:
        """Have them ended."""
        with contextlib.suppress(Exception):
            if "numexpr" in sys.modules:
                self._numexpr = max(self._numexpr, sys.modules["numexpr"].get_num_threads())
                sys.modules["numexpr"].set_num_threads(1)

    def start(self) -> None:
        """Have them started again, in a kernel."""
        with contextlib.suppress(Exception):
            if self._numexpr > 1:
                sys.modules["numexpr"].set_num_threads(self._numexpr)


def has_event_loop() -> bool:
    """Whether some module has made an event loop for this thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    local = getattr(policy, "_local", None)
    return getattr(local, "_loop", None) is not None


class State:
    """What of this process must not change when a module is imported."""

    def __init__(self) -> None:
        self.threads = {thread.name for thread in threading.enumerate()}
        self.tasks = count_lasting_tasks(len(self.threads))
        self.has_loop = has_event_loop()
        self.files = open_files()

    def fault_since(self, before: State) -> str | None:
        """Tell what has come to be that kernels must not share, other than threads; None: nothing."""
        if self.has_loop and not before.has_loop:
            return "it makes an event loop"
        for descriptor, target in self.files.items():
            if before.files.get(descriptor) == target:
                continue
            if not target.startswith("/"):
                return f"it opens {target.partition(':')[0]}s"
            if is_writable(descriptor) and not target.startswith("/dev/null"):
                return f"it opens a file for writing ({target})"
        return None


def preload(
    modules: list[str], idle_threads: IdleThreads, tell: Callable[[dict[str, Any]], None]
) -> dict[str, str]:
    """Import modules; which of them must not be imported here, and why."""
    unfit = {}
    before = State()
    for module in modules:
        tell({"op": "importing", "module": module})
        with ThreadStarts() as starts, without_allocator_thread():
            try:
                importlib.import_module(module)
            except BaseException as error:
                unfit[module] = f"{type(error).__name__}: {error}"[:500]
        idle_threads.end()
        state = State()
        fault = state.fault_since(before)
        if state.tasks > before.tasks:
            # One that held a lock at the fork would hold it in every kernel, for ever.
            fault = starts.blame(module, state.threads - before.threads)
        if fault is not None:
            unfit.setdefault(module, fault)
        before = state
    return unfit


def import_early(names: list[str]) -> None:
    """Import what kernels were seen to import late."""
    standard: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset())
    for name in names:
        package = name.partition(".")[0]
        if name not in sys.modules and (package in OWN_PACKAGES or package in standard):
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def act_as_kernel() -> None:
    """Have modules find the environment in which a kernel's own code would import them."""
    from ipykernel.zmqshell import ZMQInteractiveShell

    with contextlib.suppress(Exception):
        ZMQInteractiveShell.init_environment(None)  # type: ignore[arg-type]
    if not os.environ.get("MPLBACKEND"):
        os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"


def watched_paths(modules: list[str]) -> list[str]:
    """Tell what changes when packages are installed or removed, or modules edited."""
    folders = [Path(entry) for entry in sys.path if entry]
    files = [getattr(sys.modules.get(name), "__file__", None) for name in modules]
    found = [*folders, *(path for folder in folders for path in sorted(folder.glob("*.pth")))]
    found += [Path(file) for file in files if file]
    found += [Path(sys.executable), Path(sys.prefix) / "pyvenv.cfg"]
    return list(dict.fromkeys(map(str, found)))


# ---------------------------------------------------------------------------------- what is built ahead


class Launcher:
    """What `python -m ipykernel_launcher` is to a kernel, without the process."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("ipykernel_launcher")
        if spec is None or spec.origin is None:
            raise Broken("there is no ipykernel_launcher")
        self.path = spec.origin
        self.main = types.ModuleType("__main__")
        self.main.__file__ = spec.origin
        self.main.__spec__ = spec
        self.main.__builtins__ = builtins  # type: ignore[attr-defined]


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stand in for a step that has been taken."""


class Prepared:
    """An `IPKernelApp`, and if possible its shell, built before the fork for one command line."""

    def __init__(self, arguments: list[str]) -> None:
        from ipykernel.kernelapp import IPKernelApp
        from IPython.core.application import BaseIPythonApplication

        self.arguments = arguments
        self.shell: PreparedShell | None = None
        self.app: Any = IPKernelApp.instance()
        app = self.app
        if not all(hasattr(app, name) for name in (*APP_DONE, "init_crash_handler", "connection_file")):
            raise Broken("IPKernelApp is not as expected")
        app.__dict__["init_crash_handler"] = _nothing
        BaseIPythonApplication.initialize(app, arguments)  # type: ignore[no-untyped-call]
        del app.__dict__["init_crash_handler"]
        if app.subapp is not None or app.connection_file != CONNECTION_FILE:
            raise Broken("the command line is not as expected")
        names = (app.config_file_name, "ipython_config.py")
        stems = [name[: -len(".py")] for name in names]
        self._candidates = [
            os.path.join(folder, f"{stem}.{suffix}")
            for folder in app.config_file_paths
            for stem in stems
            for suffix in ("py", "json")
        ]
        self._session = app.session  # as it is with every kernel, made by the application
        if app.loaded_config_files or any(map(os.path.exists, self._candidates)):
            raise Broken("there are configuration files: each kernel is to read them itself")
        self.files = ModuleFiles()
        self._compiled = dict(map(compile_file, SENT_LATER))
        with contextlib.suppress(Broken, AttributeError):
            self.shell = PreparedShell(app)

    def is_current(self, template: list[str]) -> bool:
        """Whether a kernel with this command line, started now, would come out the same."""
        return (
            template == self.arguments
            and os.path.isdir(self.app.profile_dir.location)
            and not any(map(os.path.exists, self._candidates))
        )

    def use(self, arguments: list[str], connection_file: str) -> Any:
        """Make the application that of this kernel; it is to be initialized as usual."""
        app = self.app
        app.argv = list(arguments)
        app.connection_file = connection_file
        renew(self._session)
        for config in (app.config, app.cli_config):
            section = config.IPKernelApp
            section.connection_file = type(section.connection_file)(connection_file)
        app.__dict__.update(dict.fromkeys(APP_DONE, _nothing))
        self.files.offer()
        if self.shell is not None:
            self.shell.offer()
        return app

    def settle(self) -> None:
        """Let the application be as any other, once it has been initialized."""
        for name in APP_DONE:
            self.app.__dict__.pop(name, None)
        self.files.withdraw(self.app.kernel)
        self.app.kernel.__dict__[COMPILED] = self._compiled
        if self.shell is not None:
            self.shell.withdraw()

    def drop(self) -> None:
        """Forget it all: the kernel is to build its own."""
        type(self.app).clear_instance()
        if self.shell is not None:
            self.shell.forget()


def compile_file(name: str) -> tuple[str, types.CodeType]:
    """Read a file of the package; its text, and what `exec` would compile that to."""
    with open(os.path.join(os.path.dirname(OUR_FOLDER), name), encoding="utf-8") as file:
        source = file.read()
    return source, compile(source, "<string>", "exec")


def renew(session: Any) -> None:
    """Make a messaging session one of this process."""
    from jupyter_client.session import new_id, new_id_bytes

    session.pid = os.getpid()
    session.session = new_id()
    session.key = new_id_bytes()


class ModuleFiles:
    """The list of module files that a kernel makes for its debugger, made once for all.

    To make it, a kernel touches every module, and so copies 3 MB that it would go on sharing.
    """

    def __init__(self) -> None:
        from ipykernel import ipkernel

        self._module: Any = ipkernel
        self._sys = self._module.sys
        self._files: list[str] = []
        self._is_known = "_kernel_modules" in ipkernel.IPythonKernel.__init__.__code__.co_names

    def gather(self) -> None:
        """Make the list."""
        found = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
        self._files = [file for file in found if file]

    def offer(self) -> None:
        """Let the kernel that is built next find no modules."""
        if not self._is_known:
            return
        stand_in = types.SimpleNamespace(**{**vars(sys), "modules": {}})
        self._module.sys = stand_in

    def withdraw(self, kernel: Any) -> None:
        """Let all be as it was, and give that kernel the list."""
        if not self._is_known:
            return
        self._module.sys = self._sys
        empty = kernel._kernel_modules
        kernel._kernel_modules = self._files
        debugger = getattr(kernel, "debugger", None)
        if debugger is not None and debugger.kernel_modules is empty:
            debugger.kernel_modules = self._files


class PreparedShell:
    """The shell of a kernel, but for what belongs to one process: history, namespace, standard streams."""

    def __init__(self, app: Any) -> None:
        from ipykernel.compiler import XCachingCompiler
        from ipykernel.ipkernel import IPythonKernel
        from ipykernel.zmqshell import ZMQInteractiveShell

        sections = [value for section in app.config.values() for value in section.values()]
        if app.kernel_class is not IPythonKernel or any(
            isinstance(value, type(app.config)) for value in sections
        ):
            raise Broken("the kernel is a special one")
        self._class = ZMQInteractiveShell
        self._expected = {"user_module": None, "user_ns": None, "compiler_class": XCachingCompiler}
        self._atexit: list[tuple[Any, Any, Any]] = []
        self.shell = shell = ZMQInteractiveShell.__new__(ZMQInteractiveShell)
        for name in SHELL_LATE:
            getattr(shell, name)  # an IPython that has no such step is none that we know
            shell.__dict__[name] = _nothing
        register = atexit.register
        atexit.register = self._note_atexit  # type: ignore[assignment]
        try:
            shell.__init__(parent=app, profile_dir=app.profile_dir, **self._expected)  # type: ignore[misc]
        finally:
            atexit.register = register
        shell.history_manager = None
        # What is made, and learned of types, with the first value that is shown is the same for all kernels.
        with contextlib.suppress(AttributeError):
            shell.display_formatter.format(0)  # type: ignore[union-attr]

    def _note_atexit(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self._atexit.append((function, args, kwargs))
        return function

    def offer(self) -> None:
        """Have the kernel that is built next take this shell instead of building one."""

        def instance(*args: Any, **kwargs: Any) -> Any:
            self.withdraw()
            expected = {**self._expected, "profile_dir": self.shell.profile_dir}
            rest = {"parent", "kernel"}
            fits = not args and set(kwargs) == set(expected) | rest
            if not fits or any(kwargs[name] is not value for name, value in expected.items()):
                self.forget()
                return self._class.instance(*args, **kwargs)
            return self._complete(kwargs["kernel"])

        self._class.instance = instance  # type: ignore[method-assign]

    def withdraw(self) -> None:
        """Let the class be as it was."""
        if "instance" in vars(self._class):
            del self._class.instance

    def forget(self) -> None:
        """Leave it to the garbage collector."""
        self._atexit.clear()

    def _complete(self, kernel: Any) -> Any:
        """Take the steps that were left out, in a process that is the kernel's."""
        shell = self.shell
        shell.parent = shell.kernel = kernel
        for name in SHELL_LATE:
            del shell.__dict__[name]
        shell.starting_dir = os.getcwd()
        count = len(shell.configurables)
        for name in SHELL_LATE:
            getattr(shell, name)()
        for name in ("_", "__", "___"):  # where they are otherwise
            if name in shell.user_ns:
                shell.user_ns[name] = shell.user_ns.pop(name)
        # The history manager is the second that is made.
        shell.configurables[1:1] = shell.configurables[count:]
        del shell.configurables[count + 1 :]
        for function, args, kwargs in self._atexit:
            atexit.register(function, *args, **kwargs)
        for each in type(shell)._walk_mro():
            each._instance = shell  # type: ignore[assignment]
        return shell


# ---------------------------------------------------------------------------------- a kernel


def draw_anew() -> None:
    """Give this process random numbers, names and keys of its own; `random` sees to itself."""
    vars(tempfile).update(tempdir=None, _name_sequence=None)
    vars(threading)["_counter"] = itertools.count(1).__next__
    process = sys.modules.get("multiprocessing.process")
    if process is not None:
        config = process._current_process._config
        config["authkey"] = process.AuthenticationString(os.urandom(32))
    with contextlib.suppress(Exception):
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()
    with contextlib.suppress(Exception):
        if "torch" in sys.modules:
            sys.modules["torch"].seed()


def set_environment(environment: dict[str, str]) -> None:
    """Make the environment exactly this."""
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


class Kernel:
    """What one process needs to become a kernel."""

    def __init__(self, zygote: Zygote, request: dict[str, Any]) -> None:
        self.prepared = zygote.prepared
        self.launcher = zygote.launcher
        self.idle_threads = zygote.idle_threads
        self.environment = {**zygote.environment, **request["env"]}
        self.arguments: list[str] = request["arguments"]
        self.command: list[str] = request["command"]
        self.connection_file: str = request["connection_file"]
        self.probe: Callable[[Any], None] | None = None

    def run(self) -> None:
        """Be the kernel; never returns."""
        code = 1
        try:
            code = self._run()
        except SystemExit as error:
            code = exit_code(error)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            leave(code)

    def _run(self) -> int:
        set_environment({**self.environment, "JPY_PARENT_PID": os.environ["JPY_PARENT_PID"]})
        sys.argv = [self.launcher.path, *self.arguments]
        if hasattr(sys, "orig_argv"):
            sys.orig_argv = self.command
        draw_anew()
        self.idle_threads.start()
        gc.enable()
        app = self._application()
        if self.probe is not None:
            self.probe(app)
        app.start()
        return 0

    def _application(self) -> Any:
        from ipykernel.kernelapp import IPKernelApp

        prepared = self.prepared
        template = [argument.replace(self.connection_file, CONNECTION_FILE) for argument in self.arguments]
        if prepared is not None and not prepared.is_current(template):
            prepared.drop()
            prepared = None
        app = prepared.use(self.arguments, self.connection_file) if prepared else IPKernelApp.instance()
        # The class has read this when it was imported, in another process.
        app.parent_handle = int(os.environ["JPY_PARENT_PID"])
        app.initialize()
        if prepared is not None:
            prepared.settle()
        return app


def exit_code(error: SystemExit) -> int:
    """Tell with which code the interpreter would end."""
    if error.code is None:
        return 0
    return error.code & 255 if isinstance(error.code, int) else 1


def leave(code: int) -> None:
    """End as the interpreter does, except that what came from before the fork is left in peace.

    To take apart a thousand modules would first copy their memory.
    """
    steps: list[Callable[[], Any]] = [end_control, threading._shutdown]  # type: ignore[attr-defined]
    steps += [atexit._run_exitfuncs, let_go, flush_files]
    for step in steps:
        with contextlib.suppress(BaseException):
            step()
    # Holding the interpreter's lock: other threads stand still. Handlers of C libraries run.
    ctypes.PyDLL(None).exit(code)


def end_control() -> None:
    """Let the thread that was asked to shut the kernel down have its last word.

    It waits 10 s for the thread that sends outputs if that ends first, which with so little left to do it
    often would.
    """
    app = sys.modules["ipykernel.kernelapp"].IPKernelApp._instance
    if app.kernel._shutdown_message is not None:
        app.control_thread.join(1.0)


def let_go() -> None:
    """Drop what the user's code has made, so that finalizers run."""
    zmqshell = sys.modules["ipykernel.zmqshell"]
    shell = zmqshell.ZMQInteractiveShell._instance
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        sys.__dict__.pop(name, None)
    vars(builtins).pop("_", None)
    if shell is not None:
        shell.user_ns.clear()
        shell.user_module.__dict__.clear()
        shell.last_execution_result = None
    gc.collect()


def flush_files() -> None:
    """Write what files still hold back; texts first, for they hold it back from the others."""
    kinds = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)
    # `isinstance` would ask the objects themselves: that takes twice as long, and may run code of theirs.
    files = [each for each in gc.get_objects() if issubclass(type(each), kinds)]
    for kind in (kinds[:1], kinds[1:]):
        for file in files:
            if isinstance(file, kind) and not file.closed:
                with contextlib.suppress(Exception):
                    file.flush()


# ---------------------------------------------------------------------------------- the process


class Zygote:
    """This process."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.pid = os.getpid()
        self.shim = load_shim()
        self.environment = {name: os.environ[name] for name in os.environ if name != "JPY_PARENT_PID"}
        self.launcher = Launcher()
        self.idle_threads = IdleThreads()
        self.prepared: Prepared | None = None
        self.notes: list[str] = []
        self._children: dict[int, int] = {}  # process ids by pidfd
        self._poll = select.poll()
        self._is_retired = False
        #: What came with the last message.
        self._descriptors: list[int] = []

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.control.send(json.dumps(message).encode("ascii"))

    def hear(self) -> dict[str, Any]:
        """Receive a message; the end of the server is the end of this process."""
        try:
            data, self._descriptors, _, _ = socket.recv_fds(self.control, MAX_MESSAGE, 1)
        except ConnectionError:
            data = b""
        if not data:
            os._exit(0)
        message = json.loads(data)
        if not isinstance(message, dict):
            raise TypeError("a message is an object")
        return message

    def prepare(self, request: dict[str, Any]) -> None:
        """Import, build and try all that kernels are to share."""
        modules: list[str] = request["preload"]
        sys.modules["__main__"] = self.launcher.main
        before = dict(os.environ)
        import_all_of_ipykernel()
        self._keep_changes(before)
        act_as_kernel()
        before = dict(os.environ)
        unfit = preload(modules, self.idle_threads, self.tell)
        if unfit:
            self.tell({"op": "unfit", "modules": unfit})
            os._exit(0)
        self.tell({"op": "importing", "module": ""})
        import_early(self._try())
        self._keep_changes(before)
        self._build(request["arguments"])
        warm_up()
        bring_names_together()
        if self.prepared is not None:
            self.prepared.files.gather()
        gc.disable()
        gc.collect()
        gc.freeze()
        if self.prepared is not None:
            self._try_prepared(self.prepared)
        if count_lasting_tasks() > 1 or threading.active_count() > 1:
            raise Broken("ipykernel starts threads")
        self.tell({"op": "ready", "watched": watched_paths(modules), "notes": self.notes})

    def _keep_changes(self, before: dict[str, str]) -> None:
        """Let kernels have the changes to the environment that modules make when they are imported."""
        changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
        kept = {name: value for name, value in self.environment.items() if name in os.environ}
        self.environment = {**kept, **changed}

    def _build(self, arguments: list[str]) -> None:
        """Build the application and the shell, if this IPython is as we know it."""
        main = sys.modules["__main__"]
        saved = sys.argv, sys.excepthook
        sys.argv = [self.launcher.path, *arguments]
        try:
            self.prepared = Prepared(arguments)
        except (Exception, SystemExit) as error:
            sys.modules["ipykernel.kernelapp"].IPKernelApp.clear_instance()
            self.notes.append(f"kernels are built after the fork: {error or type(error).__name__}")
        finally:
            sys.argv, sys.excepthook = saved
            sys.modules["__main__"] = main

    def _try_prepared(self, prepared: Prepared) -> None:
        try:
            self._try()
        except Broken as error:
            self.notes.append(f"kernels are built after the fork: {error}")
            prepared.drop()
            self.prepared = None
            self._try()

    def _try(self) -> list[str]:
        """Fork a kernel that ends at once; what it has imported. Raises Broken if it fails."""
        folder = tempfile.mkdtemp(prefix="nbexec-trial-")
        reading, writing = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                self._be_trial(folder, writing)
            os.close(writing)
            said, status = self._watch_trial(pid, reading)
        finally:
            os.close(reading)
            shutil.rmtree(folder, ignore_errors=True)
        if status != 0 or not said.endswith("\n."):
            raise Broken(f"a forked kernel does not come up (wait status {status}): {said[-2000:]}")
        return said.split("\n")[:-1]

    def _be_trial(self, folder: str, writing: int) -> None:
        try:
            self.control.close()
            os.setpgid(0, 0)
            os.environ["JPY_PARENT_PID"] = str(self.pid)
            self.shim.die_with_parent(signal.SIGKILL, self.pid)
            os.chdir(folder)
            path = write_connection_file(folder)
            template = self.prepared.arguments if self.prepared else ["-f", CONNECTION_FILE]
            arguments = [argument.replace(CONNECTION_FILE, path) for argument in template]
            request = {"env": {}, "arguments": arguments, "command": [], "connection_file": path}
            kernel = Kernel(self, request)
            kernel.probe = lambda app: schedule_probe(app, writing)
            sys.excepthook = lambda *exc: os.write(writing, repr(exc[1]).encode(errors="replace"))
            kernel.run()
        finally:
            os._exit(127)

    def _watch_trial(self, pid: int, reading: int) -> tuple[str, int]:
        deadline = time.monotonic() + PATIENCE
        said = b""
        while (left := deadline - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
            part = os.read(reading, 65536)
            if not part:
                break
            said += part
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return said.decode(errors="replace"), status
            time.sleep(0.005)
        os.killpg(pid, signal.SIGKILL)
        return said.decode(errors="replace"), os.waitpid(pid, 0)[1]

    def serve(self) -> None:
        """Fork kernels until there is nobody left to fork them for."""
        self._poll.register(self.control, select.POLLIN)
        while not self._is_retired or self._children:
            for descriptor, _ in self._poll.poll():
                if descriptor == self.control.fileno():
                    self._answer(self.hear())
                else:
                    self._reap(descriptor)

    def _answer(self, request: dict[str, Any]) -> None:
        if request["op"] == "retire":
            self._is_retired = True
            return
        try:
            self._fork(request)
        except OSError as error:
            self.tell({"op": "failed", "id": request["id"], "reason": str(error)})
        finally:
            for descriptor in self._descriptors:
                os.close(descriptor)

    def _fork(self, request: dict[str, Any]) -> None:
        # A signal that comes at once is the shim's to handle.
        signal.pthread_sigmask(signal.SIG_BLOCK, self.shim.HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_shim(request)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.shim.HANDLED)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self._children[descriptor] = pid
        self._poll.register(descriptor, select.POLLIN)
        message = json.dumps({"op": "forked", "id": request["id"], "pid": pid}).encode("ascii")
        socket.send_fds(self.control, [message], [descriptor])

    def _reap(self, descriptor: int) -> None:
        pid = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        self.tell({"op": "ended", "pid": pid, "status": status})

    def _be_shim(self, request: dict[str, Any]) -> None:
        """Be the shim of a kernel; never returns."""
        try:
            self.control.close()
            for descriptor in self._children:
                os.close(descriptor)
            for descriptor in self._descriptors:
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                os.close(descriptor)
            os.setsid()
            os.chdir(request["cwd"])
            kernel = Kernel(self, request)
            self.shim.guard(self.pid, request["niceness"], kernel.run)
        finally:
            os._exit(127)


def import_all_of_ipykernel() -> None:
    """Import what every kernel imports."""
    for name in ("runpy", "ipykernel.kernelapp"):
        importlib.import_module(name)


def bring_names_together() -> None:
    """Let the names of modules be next to each other in memory: every kernel takes hold of them all."""
    for name in list(sys.modules):
        module = sys.modules.pop(name)
        sys.modules[name.encode().decode()] = module


def warm_up() -> None:
    """Do what every kernel does first and keeps no trace of, so that they share what it leaves behind."""
    import sqlite3

    from IPython.core.inputtransformer2 import TransformerManager
    from jupyter_client.session import Session

    with contextlib.suppress(Exception):
        TransformerManager().transform_cell("1 + 1\n")  # type: ignore[no-untyped-call]
        sqlite3.connect(":memory:").close()
        session = Session(key=os.urandom(16))
        parts = session.serialize(session.msg("status", {"execution_state": "idle"}))
        session.deserialize(session.feed_identities(parts)[1])


def write_connection_file(folder: str) -> str:
    """Write the connection file of a kernel that nobody will connect to."""
    path = os.path.join(folder, "kernel.json")
    channels = ("shell", "iopub", "stdin", "hb", "control")
    # The name of a socket must be short; the kernel is started in this folder.
    info: dict[str, Any] = {f"{channel}_port": number for number, channel in enumerate(channels, 1)}
    info.update(transport="ipc", ip="k", key=os.urandom(16).hex())
    info["signature_scheme"] = "hmac-sha256"
    with open(path, "w", encoding="ascii") as file:
        json.dump(info, file)
    return path


def schedule_probe(app: Any, writing: int) -> None:
    """Have a kernel do a little of everything once it runs, say what it has imported, and end."""
    from tornado.ioloop import IOLoop

    loop = IOLoop.current()

    def act() -> None:
        shell = app.shell
        shell.run_cell("1 / 0", silent=True)
        done = shell.run_cell("display({'text/plain': 'x'}, raw=True)\n[1]", store_history=True)
        if done.success and done.result == [1]:
            os.write(writing, ("\n".join(sys.modules) + "\n.").encode())
        os.close(writing)
        loop.stop()

    loop.add_callback(act)


def main(descriptor: int) -> None:
    """Prepare what the first message says, and serve."""
    if sys.path and os.path.abspath(sys.path[0]) == OUR_FOLDER:
        del sys.path[0]
    os.set_inheritable(descriptor, False)  # noqa: FBT003
    control = socket.socket(fileno=descriptor)
    try:
        zygote = Zygote(control)
        zygote.prepare(zygote.hear())
    except Exception as error:
        reason = str(error) if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
        control.send(json.dumps({"op": "broken", "reason": reason[-4000:]}).encode("ascii"))
        os._exit(1)
    with contextlib.suppress(ConnectionError):
        zygote.serve()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
