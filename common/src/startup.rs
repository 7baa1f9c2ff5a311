//! How a service process starts and ends: options, configuration, connections, exit codes.
