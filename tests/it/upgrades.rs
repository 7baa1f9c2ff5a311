//! Releases side by side and one after the other: what an older one has left behind, what a newer one adds, and what belongs to a newer one.

mod newer;
mod scenes;
mod stage;
mod states;
mod tomorrow;
