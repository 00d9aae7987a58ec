"""Lightning's Trainer: one callback. Two micro-batches make a step; validation is recorded beside it."""

from __future__ import annotations

import click
import torch
from gradwatch.demo.corpus import read_corpus
from gradwatch.demo.model import CharacterModel
from gradwatch.integrations.lightning import GradwatchCallback
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LENGTH = 64
Batch = tuple[Tensor, Tensor]


class LanguageModel(LightningModule):
    def __init__(self, learning_rate: float = 2.0, momentum: float = 0.9) -> None:
        super().__init__()
        self.save_hyperparameters()  # become the run's configuration
        self.model = CharacterModel(width=48)

    def loss(self, batch: Batch) -> Tensor:
        characters, following = batch
        return nn.functional.cross_entropy(self.model(characters).flatten(0, 1), following.flatten())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("validation loss", self.loss(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.learning_rate, momentum=self.hparams.momentum)


@click.command()
@click.option("--steps", default=60, show_default=True)
@click.option("--clip", default=0.5, show_default=True, help="Threshold of the total norm.")
def main(steps: int, clip: float) -> None:
    torch.set_num_threads(1)  # fastest for a model this small
    seed_everything(0)
    windows = read_corpus().unfold(0, LENGTH + 1, LENGTH)
    samples = TensorDataset(windows[:, :-1], windows[:, 1:])
    held_out, learnt = torch.utils.data.random_split(samples, [64, len(samples) - 64])
    trainer = Trainer(
        callbacks=[GradwatchCallback(clip=clip, project="examples", name="Lightning")],
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=2,
        val_check_interval=min(50, 2 * steps),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    training = DataLoader(learnt, batch_size=8, shuffle=True)
    trainer.fit(LanguageModel(), training, DataLoader(held_out, batch_size=32))
    click.echo(f"validation loss {trainer.callback_metrics['validation loss']:.3f} after {trainer.global_step} steps")


if __name__ == "__main__":
    main()
