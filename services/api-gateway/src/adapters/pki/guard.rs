//! Who is no longer let in.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cloud_service_kit::{server::Guard, tls::serial_of};
use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

/// Open connections are swept when there are so many more than there were.
const SWEEP: usize = 64;

#[derive(Default)]
struct State {
    revoked: HashSet<String>,
    /// Cuts the connections of a certificate off, by its serial number.
    open: HashMap<String, Vec<CancellationToken>>,
    opened: usize,
}

/// The certificates that were revoked, and the connections that are open with any.
#[derive(Default)]
pub struct Revocations(Mutex<State>);

impl Revocations {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the maps whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over which certificates are revoked, and cuts their connections off.
    pub fn set(&self, revoked: HashSet<String>) {
        let mut state = self.lock();
        for serial in &revoked {
            for connection in state.open.remove(serial).unwrap_or_default() {
                connection.cancel();
            }
        }
        state.revoked = revoked;
    }

    /// Whether a certificate was revoked.
    #[must_use]
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.lock().revoked.contains(serial)
    }
}

impl Guard for Revocations {
    fn admit(&self, certificates: &[CertificateDer<'static>]) -> Option<CancellationToken> {
        let serial = serial_of(certificates.first()?).ok()?;
        let mut state = self.lock();
        if state.revoked.contains(&serial) {
            return None;
        }
        state.opened += 1;
        if state.opened >= SWEEP {
            state.opened = 0;
            state.open.retain(|_, connections| {
                connections.retain(|c| !c.is_cancelled());
                !connections.is_empty()
            });
        }
        let token = CancellationToken::new();
        state.open.entry(serial).or_default().push(token.clone());
        Some(token)
    }
}
