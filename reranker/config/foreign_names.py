"""Names of the original system and of sentence-transformers, and the keys that do the same here."""

from __future__ import annotations

# A name, in lower case and without its group -> what to use.
KEYS = {
    # The original system's notebooks and scripts.
    "num_train_epochs": "trainer.epochs",
    "train_batch_size": "trainer.batch_size",
    "default_activation_function": "model.activation",
    "activation_fn": "model.activation",
    "random_seed": "seed",
    "val_size": "sampling.val_size (with data=pairs), or data.dev_fraction and data.test_fraction",
    "test_size": "data.test_fraction",
    "data_path": "sampling.path",
    "output_model_dir": "output_dir, which receives the folder model/",
    "output_path": "output_dir, which receives the folder model/",
    "model_name": "model.hub_id with model.revision, or a preset such as model=minilm",
    "model_name_or_path": "model.path, model.hub_id, or a preset such as model=minilm",
    "optimizer_params": "trainer.learning_rate and trainer.weight_decay",
    "max_positives_to_sample": "sampling.max_positives",
    "min_positives_to_keep_user": "sampling.min_positives",
    "negatives_per_positive": "sampling.negatives_per_positive",
    "parts_to_load_indices": "sampling.parts",
    # CrossEncoder.fit and CrossEncoderTrainingArguments.
    "num_epochs": "trainer.epochs",
    "lr": "trainer.learning_rate",
    "warmup_ratio": "trainer.warmup_fraction",
    "lr_scheduler_type": "trainer.schedule",
    "per_device_train_batch_size": "trainer.batch_size",
    "per_device_eval_batch_size": "nothing: scoring packs its batches itself",
    "gradient_accumulation_steps": "trainer.batch_size and trainer.batch_tokens",
    "eval_steps": "trainer.evaluation_steps",
    "eval_strategy": "trainer.evaluation_steps or trainer.n_evaluations",
    "logging_steps": "trainer.log_steps",
    "save_steps": "trainer.checkpoint_dir, which saves at every evaluation",
    "save_strategy": "trainer.checkpoint_dir, which saves at every evaluation",
    "load_best_model_at_end": "nothing: the best checkpoint is always kept",
    "resume_from_checkpoint": "trainer.checkpoint_dir",
    "output_dir": "output_dir, at the top level",
    "fp16": "trainer.precision=bf16",
    "bf16": "trainer.precision=bf16",
    "use_amp": "trainer.precision=bf16",
    "max_seq_length": "model.max_length",
    "num_labels": "nothing: the model has one output",
    "optim": "nothing: the optimiser is AdamW",
    "use_cpu": "trainer.device=cpu",
    "no_cuda": "trainer.device=cpu",
}


def foreign_message(key: str) -> str | None:
    """Return which key replaces a name of the original system or of sentence-transformers.

    Args:
        key: A key that the schema does not have, such as `trainer.num_train_epochs`.

    Example:
        >>> foreign_message("trainer.num_train_epochs")
        'trainer.num_train_epochs is not a key here; use trainer.epochs.'
    """
    new = KEYS.get(key.rsplit(".", 1)[-1].lower())
    return f"{key} is not a key here; use {new}." if new else None
