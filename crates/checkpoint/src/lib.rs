//! Training checkpoints that survive a crash: names, rotation, resume, background saves.
