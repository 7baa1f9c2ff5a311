//! The one consume loop of all services: receive, handle, act on the outcome. Bounded, panic-safe, drains on shutdown.
