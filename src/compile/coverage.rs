//! Warnings about hostnames that clients reach over TLS and that no certificate covers, at the
//! field that has the hostname.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::config::{Fault, FieldPath, Origin, field_path};
use crate::graph::Graph;
use crate::net::HostPattern;
use crate::observe::listed;
use crate::snapshot::{self, Bind};

/// The maximum number of names in one warning.
const MOST: usize = 10;

/// Returns a warning for each uncovered hostname of a listener, and for each route with such
/// hostnames.
pub(super) fn warnings(graph: &Graph<'_>, binds: &[Arc<Bind>]) -> Vec<Fault> {
    let mut uncovered: HashMap<&str, (&snapshot::Listener, HashSet<&HostPattern>)> = HashMap::new();
    for bind in binds.iter().filter(|bind| bind.tls) {
        for (_, listener) in bind.listeners.sorted() {
            let hosts = bind.uncovered(listener);
            if !hosts.is_empty() {
                uncovered.insert(&listener.name, (listener, hosts.into_iter().collect()));
            }
        }
    }
    let mut warnings = Vec::new();
    if uncovered.is_empty() {
        return warnings;
    }
    for (_, listener) in graph.served() {
        let name = listener.full_name();
        let Some((built, hosts)) = uncovered.get(&*name) else { continue };
        let covered = built.certificates.iter().flat_map(|slot| slot.facts());
        let covered = covered.flat_map(|facts| facts.names).map(|name| format!("`{name}`"));
        let covered = listed(covered, MOST);
        let warning = |object: &ObjectKey, field: FieldPath, names: &[&HostPattern]| {
            let hosts = listed(names.iter().map(|host| format!("`{host}`")), MOST);
            let problem = format!(
                "no certificate of listener `{name}` is for {hosts}, so clients refuse the connection \
                 (there are certificates for {covered}); `edge-gateway doctor` has the command that \
                 gets one"
            );
            Fault { origin: Origin::Host, ..Fault::warning(object.clone(), field, problem) }
        };
        let own = listener.hostname.as_ref().filter(|own| hosts.contains(own));
        if let Some(own) = own {
            let field = field_path!(spec.listeners[listener.place].hostname);
            warnings.push(warning(listener.owner.object(), field, &[own]));
        }
        for on in &listener.routes {
            // The listener's own hostname is reported above.
            let is_told = |host: &HostPattern| Some(host) == own;
            let names = on.hosts.iter().filter(|host| hosts.contains(host) && !is_told(host));
            let names: Vec<_> = names.collect();
            if !names.is_empty() {
                let route = &graph.routes[on.route].key;
                warnings.push(warning(route, field_path!(spec.hostnames), &names));
            }
        }
    }
    warnings
}
