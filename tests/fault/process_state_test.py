#!/usr/bin/env python3
"""Compares docs/process-state.md with the static and thread_local variables in the compiled libraries.

Usage: process_state_test.py PAGE SOURCES LIBRARY...
"""

import pathlib
import re
import subprocess
import sys

# Constants, and what the compiler of .proto files and the C++ library put there.
GENERATED = re.compile(r"^(std::|google::|protobuf_|descriptor_table_|shmrpc::(wire|health|grpc::reflection)::|grpc::|"
                       r"vtable for |typeinfo |_?DW\.ref|__)|_default_instance_|_once$|file_level_|"
                       r"::_static_init_|dynamic_init_dummy|reflection::v1")
SECTION = re.compile(r"\s(\.t?(?:data|bss)(?!\.rel\.ro)\S*)\s+[0-9a-f]+\s+(?:\.hidden )?(.+)$")


def variables(library):
    """(section, name) of each variable in the library's object files."""
    table = subprocess.run(["objdump", "-t", "-C", library], check=True, capture_output=True, text=True).stdout
    for line in table.splitlines():
        found = SECTION.search(line)
        if not found or found[2].startswith("."):
            continue
        section, name = found.groups()
        if not GENERATED.search(name.removeprefix("guard variable for ")):
            yield section, name


def last_part(name):
    """The variable's own name: of a::B<c::D>::F(g::H)::name it is "name"."""
    return re.split(r"::", re.sub(r"\[abi:\w+\]", "", name))[-1].split("(")[0]


def main():
    page = pathlib.Path(sys.argv[1]).read_text()
    sources = pathlib.Path(sys.argv[2])
    listed = set(re.findall(r"`([\w:-]+)`", page))
    wrong = []
    found = set()
    for library in sys.argv[3:]:
        for section, name in variables(library):
            if name.startswith("guard variable for "):
                # A thread's own cannot be in the making while it forks.
                if not section.startswith(".t"):
                    wrong.append(f"{name}: a fork() during the initialiser leaves the child waiting: use PerProcess")
                continue
            own = last_part(name)
            found.add(own)
            if own not in listed:
                wrong.append(f"{name} is not in the page")
    threads = set()
    for folder in ("runtime", "transports"):
        for source in (sources / folder).rglob("*.cc"):
            text = source.read_text()
            threads.update(re.findall(r'"(shmrpc-[a-z-]{1,8})"', text))  # the kernel keeps 15 characters
            if re.search(r"std::(j?thread|async)\b(?!::)(?!\s*>)", text) or "pthread_create(" in text:
                if source.name != "thread.cc":
                    wrong.append(f"{source.relative_to(sources)} starts a thread without StartThread")
    wrong += [f"the thread {name} is not in the page" for name in sorted(threads - listed)]
    # The test is worth nothing when it finds nothing.
    for expected in ("process_timer", "of_this_thread", "list"):
        if expected not in found:
            wrong.append(f"{expected} was not found in the libraries: is this how they are compiled?")
    if not threads:
        wrong.append("no thread was found in the sources")
    for each in sorted(set(wrong)):
        print(each)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
