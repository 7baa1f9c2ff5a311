//! What every planrelay service shares: the nouns of the domain, and the seams to broker, store and model.
//!
//! # Layout, in reading order
//!
//! Pure: [`id`], [`plan`], [`reference`], [`run`], [`event`], [`tool`], [`message`] (the wire), [`limits`].
//! The world: [`env`], [`broker`], [`store`], [`llm`]. Around them: [`worker`] (the consume loop), [`config`],
//! [`telemetry`], [`shutdown`], [`client`] (what command line, HTTP and tests use).

#![warn(missing_docs)]

pub mod broker;
pub mod config;
pub mod env;
pub mod event;
pub mod id;
pub mod limits;
pub mod llm;
pub mod message;
pub mod plan;
pub mod reference;
pub mod run;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod tool;
pub mod worker;
