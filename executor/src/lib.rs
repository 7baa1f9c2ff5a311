//! Runs one step of a plan with tools; stores the result; then acknowledges.

pub mod tool;
