//! Mutual TLS.
