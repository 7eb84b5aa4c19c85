"""What a PEFT adapter's configuration says of its update, and whether that update can be known from it."""

import math
import re
from collections.abc import Mapping
from typing import Any

from gate.domain.errors import InvalidInput, NotMeasurable

HARMLESS = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "bias",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    }
)
"""Settings of ``adapter_config.json`` under which the update is known; any other, when set, is refused."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Ways to initialise the factors that leave the base as it is. PiSSA, OLoRA, CorDA and LoftQ rewrite it when loaded."""

SAFE_PATTERN = re.compile(r"[\w.^$\\-]*")


def check_adapter(config: Mapping[str, Any]) -> None:
    """Raises NotMeasurable unless the configuration is that of a plain LoRA on an unchanged base."""
    advice = "merge the adapter into its base and register the merged model"
    if config.get("peft_type") != "LORA":
        raise NotMeasurable(f"expected peft_type LORA, found {config.get('peft_type')!r}; {advice}")
    other = sorted(key for key, value in config.items() if value and key not in HARMLESS and not _plain(key, value))
    if other:
        raise NotMeasurable(f"expected a plain LoRA adapter, found {', '.join(other)} set; {advice}")
    start = config.get("init_lora_weights", True)
    if start not in PLAIN_STARTS:
        raise NotMeasurable(f"expected factors over an unchanged base, found init_lora_weights {start!r}; {advice}")
    patterns = [*_object(config, "alpha_pattern"), *_object(config, "rank_pattern")]
    wild = [p for p in patterns if not SAFE_PATTERN.fullmatch(p)]
    if wild:
        # PEFT takes them as regular expressions; a hostile one can run for hours.
        raise NotMeasurable(f"expected module names in alpha_pattern, found the expression {wild[0]!r}; {advice}")


def _plain(key: str, value: Any) -> bool:
    return (
        key == "auto_mapping"
        and isinstance(value, dict)
        and str(value.get("parent_library", "")).startswith("transformers.")
    )


def _object(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"adapter_config.json: expected an object as {key}, found {type(value).__name__}")
    return value


def scale_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor before B·A: α/r, or α/√r for rank-stabilised LoRA.

    >>> scale_of({"lora_alpha": 8, "r": 4}, "q_proj", 4), scale_of({"lora_alpha": 8, "use_rslora": True}, "q", 4)
    (2.0, 4.0)
    """
    alpha = _patterned(_object(config, "alpha_pattern"), module, config.get("lora_alpha"))
    if not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise NotMeasurable(f"expected a number as lora_alpha, found {alpha!r}; save the adapter again")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def rank_of(config: Mapping[str, Any], module: str) -> Any:
    """The rank that the configuration gives a module's factors."""
    return _patterned(_object(config, "rank_pattern"), module, config.get("r"))


def _patterned(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that the module's name ends with."""
    return next((v for pattern, v in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module)), default)
