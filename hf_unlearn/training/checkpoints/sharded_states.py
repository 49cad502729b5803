"""What Trainer leaves out of saves under FSDP with `state_dict_type` SHARDED_STATE_DICT, where it writes no model."""

from pathlib import Path

from peft import PeftModel

from ..hooks.trainer_view import TrainerView


def save_gathered_model(trainer: TrainerView, folder: Path) -> None:
    """Put the weights together and save them, so that the folder of a finished run has a model. All ranks call it."""
    if _keeps_shards(trainer):
        trainer._save(str(folder), state_dict=trainer.accelerator.get_state_dict(trainer.model))


def save_adapter_config(trainer: TrainerView, folder: Path) -> None:
    """Write the configuration of an adapter into a checkpoint of shards, for the run that goes on from it."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.args.should_save and _keeps_shards(trainer) and isinstance(model, PeftModel):
        for name, config in model.peft_config.items():
            config.save_pretrained(str(folder if name == "default" else folder / name))


def _keeps_shards(trainer: TrainerView) -> bool:
    return trainer.distributed.fsdp and "FULL" not in str(trainer.accelerator.state.fsdp_plugin.state_dict_type)
