//! What every planrelay service shares: the nouns of the domain, and the seams to broker, store and model.
//!
//! # Layout, in reading order
//!
//! Pure: [`id`], [`plan`], [`reference`], [`run`], [`event`], [`tool`], [`message`] (the wire), [`limits`].
//! The world: [`clock`], [`ids`], [`env`], [`broker`], [`store`], [`llm`]. Around them: [`seam`] (where tests stand between), [`worker`] (the consume loop), [`lease`]
//! (working under a claim), [`relay`] (publishing what a run owes), [`document`] and [`ending`] (the result), [`client`] (what command line,
//! HTTP and tests use), [`config`], [`telemetry`], [`metrics`], [`health`], [`shutdown`], [`startup`].

#![warn(missing_docs)]

pub mod broker;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
pub mod document;
pub mod ending;
pub mod env;
pub mod event;
pub mod health;
pub mod id;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod llm;
pub mod message;
pub mod meter;
pub mod metrics;
pub mod patch;
pub mod plan;
pub mod quote;
pub mod reference;
pub mod relay;
pub mod run;
pub mod seam;
pub mod shutdown;
pub mod startup;
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod tool;
pub mod wait;
pub mod worker;
