"""Attacks an unlearned model in many ways, and says how much comes back beside target and retrained control.

    dareu audit --model_name_or_path runs/target/model
    dareu audit --model_name_or_path runs/retrained/model
    dareu audit --model_name_or_path runs/dareu/model --target runs/target/audit.json \
        --retrained runs/retrained/audit.json

What is found goes to audit.json beside the model, after each audit: started again, only what is missing is made.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

from accelerate import PartialState
from rich.table import Table

from dareu.audits import Audit, NotPossible, Reader, Subject, check_audits, run_audit
from dareu.console import plain_console
from dareu.data import thin
from dareu.data.parts import DataArguments, chat_form, load_parts, split_owners
from dareu.files import content_hash
from dareu.models import load_model, load_tokenizer, resolve_model_path
from dareu.models.padding import check_padding
from dareu.options.audit import AuditArguments
from dareu.options.parsing import OptionParser
from dareu.plugins import plugin_source
from dareu.runs import config_of, inputs_of
from dareu.runs.audits import (
    StoredAudit,
    StoredAudits,
    check_alike,
    leak_scores,
    read_audits,
    robustness_of,
    stored_audit,
    write_audits,
)
from dareu.runs.program import run_program

logger = logging.getLogger("dareu.audit")

#: Options that change nothing of what one audit finds.
_APART = (
    *("model_name_or_path", "output", "target", "retrained"),
    *("strict", "skip_impossible", "audits", "audit_batch_size"),
)


def main() -> None:
    data, args = OptionParser((DataArguments, AuditArguments)).parse_args_and_config()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("audit is one process: start it without num_processes.")
    folder = Path(resolve_model_path(args.model_name_or_path))
    if args.output is None and folder.name != "model":
        raise ValueError(f"{args.model_name_or_path} is no model of a run folder: name a file to write as output.")
    output = Path(args.output) if args.output is not None else folder.parent / "audit.json"
    others = {role: read_audits(path) for role in ("target", "retrained") if (path := getattr(args, role)) is not None}
    parts = load_parts(data)
    split = split_owners(data, parts.owners)
    chosen = args.chosen()
    missing = check_audits(chosen, args.audit_kwargs, split.forget.column_names)
    for name in args.audits or ():
        if name in missing and not args.skip_impossible:
            raise ValueError(f"The audit {name!r} cannot be made, for {missing[name]}.")

    keys = {name: key_of(data, args, name, audit) for name, audit in chosen.items()}
    of_model = [paths for name, paths in inputs_of(args).items() if name.startswith("model_name_or_path")]
    identity = content_hash(of_model or args.model_name_or_path)
    check_alike(keys, **others)

    tokenizer = load_tokenizer(args.model_name_or_path, pad_token=data.pad_token)
    model = load_model(args.model_name_or_path).to(PartialState().device)
    check_padding(model)
    forget = thin(split.forget, args.max_rows)
    forget, retain = (chat_form(data, rows, tokenizer) for rows in (forget, split.retain))
    unrelated = None if parts.test is None else chat_form(data, parts.test, tokenizer)
    reader = Reader(model, tokenizer, forget, max_new_tokens=args.max_new_tokens, batch_size=args.audit_batch_size)
    subject = Subject(model, tokenizer, forget, retain, unrelated, reader, args.seed)
    found: StoredAudits = {"audits": kept(output, identity), "left_out": dict(missing)}
    asked = content_hash([str(prompt) for prompt in forget["prompt"]])
    for name in chosen:
        audit = found["audits"].get(name)
        if name in missing:
            continue
        if audit is not None and audit["key"] == keys[name]:
            logger.info("%s: nothing has changed since it was made.", name)
            continue
        try:
            attacked = list(run_audit(subject, name, args.options_of(name)))
            found["audits"][name] = stored_audit(keys[name], attacked, asked)
        except NotPossible as error:
            if not args.skip_impossible and (name in (args.audits or ()) or name in args.audit_kwargs):
                raise
            found["left_out"][name] = str(error)
            found["audits"].pop(name, None)  # of other rows or options
        write_audits(output, identity, found)
    if args.strict and found["left_out"]:
        raise ValueError(f"Left out, which --strict forbids: {listed(found['left_out'])}.")
    show(args.model_name_or_path, found, **others)


def key_of(data: DataArguments, args: AuditArguments, name: str, audit: Audit) -> str:
    """Of one audit: everything that goes in but the model."""
    settings, inputs = config_of(data, args), inputs_of(data, args)
    for option in _APART:
        settings.pop(option, None)
    settings["audit_kwargs"] = args.options_of(name)
    own = f"audit_kwargs.{name}"
    others = ("model_name_or_path", "audits", "audit_kwargs")
    read = [paths for of, paths in inputs.items() if of == own or of.startswith(f"{own}.") or not of.startswith(others)]
    installed = [find_spec(library) is not None for library in audit.libraries]
    return content_hash([name, settings, read, plugin_source(name), installed])


def kept(output: Path, identity: str) -> dict[str, StoredAudit]:
    """What was found before of the same model; nothing where that cannot be read."""
    if not output.exists():
        return {}
    try:
        return read_audits(output, identity)["audits"]
    except ValueError as error:
        logger.warning("All audits are made again, for what was kept is damaged: %s", error)
        return {}


def show(
    title: str, found: StoredAudits, target: StoredAudits | None = None, retrained: StoredAudits | None = None
) -> None:
    """Prints what was found, with leak scores in brackets."""
    leaks = leak_scores(found, target, retrained) if target is not None and retrained is not None else {}
    audits = found["audits"]
    names = dict.fromkeys(name for audit in audits.values() for of in audit["readings"].values() for name in of)
    table = Table("audit", "setting", *names, title=title)
    for audit, stored in audits.items():
        for setting, readings in stored["readings"].items():
            scores = leaks.get(audit, {}).get(setting, {})
            cells = [
                f"{readings[name]:.3f}" + (f" ({scores[name]:+.2f})" if name in scores else "")
                if name in readings
                else ""
                for name in names
            ]
            table.add_row(audit, setting, *cells)
    plain_console(200).print(table)
    if leaks:
        print("In brackets: the leak score, 0 as the retrained model, 1 as the target.")
    if retrained is not None:
        for name, value in robustness_of(found, retrained).items():
            print(f"{name} {value:.3f}")
    if found["left_out"]:
        logger.warning("Left out: %s.", listed(found["left_out"]))


def listed(left_out: dict[str, str]) -> str:
    """What is left out, with the reasons."""
    return "; ".join(f"{name} ({reason.rstrip('.')})" for name, reason in left_out.items())


if __name__ == "__main__":
    run_program(main, "audit")
