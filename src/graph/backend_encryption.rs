//! The TLS that BackendTLSPolicies and `spec.tls` of Backends configure, by backend.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::{BackendName, CORE_GROUP, ENVOY_GROUP, Kind, ObjectKey};

use super::backend_spec_tls;
use super::backend_tls::{Encryption, UpstreamTls};
use super::backend_tls_policies::{self, BackendTlsPolicies};
use super::facts::LoadFacts;
use super::index::ObjectIndex;
use super::verdict::Faults;

/// The TLS settings of all backends of a load.
#[derive(Debug)]
pub(super) struct BackendEncryption<'a> {
    pub policies: BackendTlsPolicies<'a>,
    /// `spec.tls` of each Backend that has it, or the reason why it cannot be used.
    backends: HashMap<ObjectKey, Result<Arc<UpstreamTls>, String>>,
}

impl<'a> BackendEncryption<'a> {
    pub(super) fn new(index: &ObjectIndex<'a>, facts: &LoadFacts<'_>, faults: &mut Faults) -> Self {
        let policies = backend_tls_policies::policies(index, facts, faults);
        let backends = backend_spec_tls::backends(index, facts, faults);
        Self { policies, backends }
    }

    /// Returns the encryption for a port of a Service.
    pub(super) fn of_service(&self, service: &ObjectKey, port: Option<&str>) -> Encryption {
        self.policies.encryption(service, port).unwrap_or_default()
    }

    /// Returns the encryption for a Backend: by a policy, or else by its own `spec.tls`.
    ///
    /// # Errors
    ///
    /// The reason why its `spec.tls` cannot be used.
    pub(super) fn of_backend(&self, backend: &ObjectKey) -> Result<Encryption, &str> {
        if let Some(encryption) = self.policies.encryption(backend, None) {
            return Ok(encryption);
        }
        // A policy targets a section of the Backend, which has no sections. Its author wants TLS.
        if !self.policies.naming(backend).is_empty() {
            return Ok(Encryption::Refused);
        }
        match self.backends.get(backend) {
            None => Ok(Encryption::Clear),
            Some(Ok(tls)) => Ok(Encryption::Tls(Arc::clone(tls))),
            Some(Err(why)) => Err(why),
        }
    }

    /// Returns the policies that name the target of a reference of `route`, whether or not the
    /// target exists.
    pub(super) fn naming(&self, reference: BackendName<'_>, route: &ObjectKey) -> &[usize] {
        if self.policies.all.is_empty() {
            return &[];
        }
        let kind = match (reference.group(), reference.kind()) {
            (CORE_GROUP, "Service") => Kind::Service,
            (ENVOY_GROUP, "Backend") => Kind::Backend,
            _ => return &[],
        };
        let namespace = reference.namespace.unwrap_or(&route.namespace);
        self.policies.naming(&ObjectKey::new(kind, namespace, reference.name))
    }
}
