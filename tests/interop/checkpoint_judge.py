"""Trains with the real tools, and goes on from what Weighbridge made of their checkpoints.

python checkpoint_judge.py make FOLDER     trains without a pause, and saves a checkpoint in the middle of each run:
                                           FOLDER/torch/{adam,adamw,sgd}.pt, FOLDER/trainer/checkpoint-3 (transformers'
                                           Trainer), FOLDER/lightning/*.ckpt; the losses go to FOLDER/losses.json
python checkpoint_judge.py resume FOLDER   resumes each run from FOLDER/out, where the same checkpoints are after they
                                           went through Weighbridge, and compares the losses, which must be equal
python checkpoint_judge.py built FOLDER    loads FOLDER/{adam,adamw,sgd}.pt, whose optimizer state was built without
                                           torch, into the model and optimizer, and takes a step

The last line is JSON: {"checked": [...]}. A difference ends the script with an error.
"""

import json
import pathlib
import shutil
import sys
import warnings

import torch

warnings.filterwarnings("ignore")
torch.use_deterministic_algorithms(True)
torch.set_num_threads(1)
STEPS, MIDDLE = 6, 3
OPTIMIZERS = {
    "adam": lambda params: torch.optim.Adam(params, lr=0.01, amsgrad=True),
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9, nesterov=True),
}


def network():
    torch.manual_seed(0)
    # Batch norm has buffers, one of them an integer.
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.rand(16, 4, generator=generator)
    return x, (x.sum(1, keepdim=True) * 3).sin()


def torch_parts(name):
    model = network()
    layers = [{"params": model[0].parameters()}, {"params": model[1:].parameters(), "lr": 0.002}]
    optimizer = OPTIMIZERS[name](layers)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    return model, optimizer, scheduler


def torch_steps(model, optimizer, scheduler, first, last):
    losses = []
    for step in range(first, last):
        x, y = batch(step)
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def make_torch(folder):
    folder.mkdir()
    losses = {}
    for name in OPTIMIZERS:
        parts = torch_parts(name)
        before = torch_steps(*parts, 0, MIDDLE)
        model, optimizer, scheduler = parts
        state = {
            "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "epoch": 1,
            "step": MIDDLE,
            "loss": before[-1],
        }
        torch.save(state, folder / f"{name}.pt")
        losses[name] = before + torch_steps(*parts, MIDDLE, STEPS)
    return losses


def resume_torch(folder, losses):
    for name in OPTIMIZERS:
        model, optimizer, scheduler = torch_parts(name)
        state = torch.load(folder / f"{name}.pt", weights_only=True)
        assert (state["epoch"], state["step"]) == (1, MIDDLE), state.keys()
        assert state["metrics"]["loss"] == losses[name][MIDDLE - 1]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        after = torch_steps(model, optimizer, scheduler, MIDDLE, STEPS)
        assert after == losses[name][MIDDLE:], (name, after, losses[name])


def trainer(output):
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, i):
            generator = torch.Generator().manual_seed(i)
            ids = torch.randint(0, 50, (6,), generator=generator)
            return {"input_ids": ids, "attention_mask": torch.ones(6, dtype=torch.long), "labels": int(ids[0] % 2)}

    arguments = TrainingArguments(
        output_dir=str(output), max_steps=STEPS, save_steps=MIDDLE, logging_steps=1, report_to=[], seed=1,
        per_device_train_batch_size=4, use_cpu=True, learning_rate=0.01, disable_tqdm=True, save_strategy="steps",
    )  # fmt: skip
    torch.manual_seed(0)
    # With dropout, so that the random state counts.
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8,
    )  # fmt: skip
    return Trainer(BertForSequenceClassification(config), arguments, train_dataset=Data())


def trainer_losses(run):
    return [line["loss"] for line in run.state.log_history if "loss" in line]


def make_trainer(folder):
    run = trainer(folder)
    run.train()
    losses = trainer_losses(run)
    assert len(losses) == STEPS, losses
    return losses


def resume_trainer(made, folder, losses):
    from safetensors.torch import load_file

    run = trainer(folder)
    run.train(resume_from_checkpoint=str(folder / f"checkpoint-{MIDDLE}"))
    after = trainer_losses(run)
    assert after == losses, (after, losses)
    # Trainer rounds what it logs, so the weights at the end are compared too.
    wanted, found = (load_file(f / f"checkpoint-{STEPS}/model.safetensors") for f in (made, folder))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def lightning_module():
    import pytorch_lightning as lightning

    class Module(lightning.LightningModule):
        def __init__(self, width=8):
            super().__init__()
            self.save_hyperparameters()
            self.net = network()
            self.losses = []

        def training_step(self, numbers, _):
            x, y = batch(int(numbers[0]))
            loss = torch.nn.functional.mse_loss(self.net(x), y)
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
            schedule = {"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5), "interval": "step"}
            return [optimizer], [schedule]

    return Module()


def make_lightning(folder):
    import pytorch_lightning as lightning
    from pytorch_lightning.callbacks import ModelCheckpoint

    folder.mkdir()
    saving = ModelCheckpoint(dirpath=folder, every_n_train_steps=MIDDLE, save_top_k=-1, filename="{step}")
    run = lightning.Trainer(
        max_steps=STEPS, accelerator="cpu", logger=False, callbacks=[saving], enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    module = lightning_module()
    run.fit(module, torch.utils.data.DataLoader(range(STEPS), batch_size=1))
    assert len(module.losses) == STEPS
    return module.losses


def resume_lightning(folder, losses):
    state = torch.load(folder / "lightning.pt", weights_only=True)
    module = lightning_module()
    [optimizer], [schedule] = module.configure_optimizers()
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule["scheduler"].load_state_dict(state["scheduler"])
    for step in range(state["step"], STEPS):
        optimizer.zero_grad()
        module.training_step([step], 0).backward()
        optimizer.step()
        schedule["scheduler"].step()
    assert module.losses == losses[MIDDLE:], (module.losses, losses)


def built(folder):
    for name in OPTIMIZERS:
        state = torch.load(folder / f"{name}.pt", weights_only=True)
        model = torch.nn.Linear(3, 2)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
        optimizer = kind(model.parameters(), lr=0.5, **({"momentum": 0.9} if name == "sgd" else {}))
        # What is built has every option that torch's class has, with its default.
        defaults = optimizer.state_dict()["param_groups"][0]
        group = dict(state["optimizer"]["param_groups"][0])
        assert group.pop("param_names") == ["weight", "bias"]
        assert group.pop("lr") == 0.25 and defaults.pop("lr") == 0.5
        assert group == defaults, (name, group, defaults)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        before = model.weight.detach().clone()
        kept = optimizer.state[model.weight]
        if name == "sgd":
            momentum = kept["momentum_buffer"].clone()
            wanted = before - 0.25 * (0.9 * momentum + 1.0)
        else:
            assert kept["step"].item() == 7 and kept["step"].dtype == torch.float32
            m, v = kept["exp_avg"] * 0.9 + 0.1, kept["exp_avg_sq"] * 0.999 + 0.001
            decayed = before * (1 - 0.25 * 0.01) if name == "adamw" else before
            wanted = decayed - 0.25 * (m / (1 - 0.9**8)) / ((v / (1 - 0.999**8)).sqrt() + 1e-8)
        model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.ones(2)
        optimizer.step()
        torch.testing.assert_close(model.weight.detach(), wanted)
    return list(OPTIMIZERS)


def main():
    task, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if task == "make":
        losses = make_torch(folder / "torch")
        losses["trainer"] = make_trainer(folder / "trainer")
        losses["lightning"] = make_lightning(folder / "lightning")
        (folder / "losses.json").write_text(json.dumps(losses))
        checked = list(losses)
    elif task == "resume":
        losses = json.loads((folder / "losses.json").read_text())
        resume_torch(folder / "out", losses)
        # What Weighbridge does not write of Trainer's folder (schedule, random state, arguments) stays as it was.
        made, out = folder / f"trainer/checkpoint-{MIDDLE}", folder / f"out/trainer/checkpoint-{MIDDLE}"
        for path in made.iterdir():
            if path.name not in ("model.safetensors", "optimizer.pt"):
                shutil.copy(path, out / path.name)
        resume_trainer(made.parent, out.parent, losses["trainer"])
        resume_lightning(folder / "out", losses["lightning"])
        checked = list(losses)
    else:
        checked = built(folder)
    print(json.dumps({"checked": checked}))


main()
