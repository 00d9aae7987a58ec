"""Transformers' Trainer: one line before ``trainer.train()``. A small Llama learns from this machine's own text."""

from __future__ import annotations

import tempfile

import click
import torch
from gradwatch.demo.corpus import ALPHABET, read_corpus
from gradwatch.integrations.transformers import watch_trainer
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

LENGTH = 64


@click.command()
@click.option("--steps", default=60, show_default=True)
@click.option("--clip", default=1.0, show_default=True, help="Threshold of the total norm.")
def main(steps: int, clip: float) -> None:
    torch.set_num_threads(1)  # fastest for a model this small
    set_seed(0)
    windows = read_corpus().unfold(0, LENGTH, LENGTH)
    samples = [{"input_ids": window, "labels": window} for window in windows]
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(ALPHABET), max_position_embeddings=LENGTH, **shape))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            run_name="Transformers",
            max_steps=steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=3e-3,
            max_grad_norm=clip,  # what gradwatch clips by, unless watch_trainer is told another
            eval_strategy="steps",
            eval_steps=max(1, steps // 3),
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, train_dataset=samples[32:], eval_dataset=samples[:32])
        watch_trainer(trainer, project="examples")
        trainer.train()
    click.echo(f"loss {trainer.evaluate()['eval_loss']:.3f} after {trainer.state.global_step} steps")


if __name__ == "__main__":
    main()
