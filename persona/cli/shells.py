"""Completion scripts for bash, zsh and fish.

At every Tab the script calls `persona` with the words on the line. The answer has one item for each possible
next word (`completions`). Unlike click's own scripts, these add no space after an unfinished word, such as
`density=`, and in bash `=`, `:` and `@` split words but not names.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from click import Command
from click.shell_completion import (
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    shell_complete,
    split_arg_string,
)

from persona.cli.completions import VARIABLE

_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" type value typed="" quote=""
    local word="${line##*[[:space:]]}"
    COMPREPLY=()
    [[ ${COMP_WORDS[COMP_CWORD]} == [\\"\\']* ]] && quote=1
    # Readline replaces only what follows the last of these; what stands before it must not come again.
    [[ $word == *[:=@]* && -z $quote ]] && typed="${word%%"${word##*[:=@]}"}"
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames -o filenames 2>/dev/null ;;
            file) compopt -o default -o filenames 2>/dev/null ;;
            plain | part)
                [[ $type == part ]] && compopt -o nospace 2>/dev/null
                [[ -z $quote ]] && printf -v value '%%q' "$value"
                COMPREPLY+=("${value#"$typed"}") ;;
        esac
    done < <(COMP_WORDS="$line" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain described begun response
    local type key descr none=1
    response=("${(@f)$(COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \\
        %(complete_var)s=zsh_complete ${words[1]} 2>/dev/null)}")
    for type key descr in ${response}; do
        case $type in
            plain) if [[ $descr == _ ]]; then plain+=("$key"); else described+=("$key:$descr"); fi ;;
            part) begun+=("$key") ;;
            dir) _path_files -/ && none=0 ;;
            file) _path_files -f && none=0 ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U && none=0
    (( $#plain )) && compadd -U -V unsorted -a plain && none=0
    (( $#begun )) && compadd -U -V unsorted -S '' -a begun && none=0
    return none
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l program (commandline -opc)[1]
    for item in (env COMP_WORDS=(commandline -cp) COMP_CWORD=(commandline -t) \\
            %(complete_var)s=fish_complete $program 2>/dev/null)
        set -l found (string split -m 1 "," -- $item)
        switch $found[1]
            case dir
                __fish_complete_directories $found[2]
            case file
                __fish_complete_path $found[2]
            case plain part
                echo $found[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Bash(ShellComplete):
    """Completion in bash. The line comes as it was typed, up to the cursor."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """The whole words after the program, and the word that the cursor is in."""
        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        begun = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], begun

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """One line: the type, the word."""
        return f"{item.type},{item.value}"


class _Zsh(ZshComplete):
    """Completion in zsh, with a description beside each word."""

    source_template: ClassVar[str] = _ZSH


class _Fish(FishComplete):
    """Completion in fish, with a description beside each word."""

    source_template: ClassVar[str] = _FISH


SHELLS: dict[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}
"""The shells that there is a script for."""


def answer(cli: Command, instruction: str) -> int:
    """Answers a completion script (`bash_complete`); returns the exit code."""
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)
    return shell_complete(cli, {}, "persona", VARIABLE, instruction)


def script(shell: str, cli: Command) -> str:
    """The script that a shell of that name reads once."""
    return SHELLS[shell](cli, {}, "persona", VARIABLE).source()
