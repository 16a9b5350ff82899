//! The slots of the certificates in the graph.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{NamedCertificate, Readiness};
use crate::tls::{CertSlot, CertSource, CertStore, Peer, Reading};

/// The slots of the certificates in the graph. They are needed twice, for the graph and for the
/// listener; the store keeps only slots that are in use, so they are held here in between.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    reading: Reading<'a>,
    held: RefCell<HashMap<(NamedCertificate, Peer), Arc<CertSlot>>>,
}

impl<'a> Slots<'a> {
    pub(super) fn new(store: &'a CertStore) -> Self {
        Self { reading: store.reading(), held: RefCell::default() }
    }

    pub(super) fn get(&self, certificate: &NamedCertificate, shown_to: Peer) -> Arc<CertSlot> {
        let key = (certificate.clone(), shown_to);
        if let Some(slot) = self.held.borrow().get(&key) {
            return Arc::clone(slot);
        }
        let source = match certificate.clone() {
            NamedCertificate::Inline { object, chain, key } => {
                CertSource::Inline { object, chain, key, shown_to }
            }
            NamedCertificate::Lineage { object, names, host, chosen } => {
                CertSource::Lineage { object, names, host, chosen, shown_to }
            }
        };
        let slot = self.reading.slot(source);
        self.held.borrow_mut().insert(key, Arc::clone(&slot));
        slot
    }

    pub(super) fn readiness(&self, certificate: &NamedCertificate, shown_to: Peer) -> Readiness {
        let slot = self.get(certificate, shown_to);
        Readiness { ready: slot.is_ready(), problem: slot.problem() }
    }
}
