//! The switch to the next snapshot, after everything that can fail.

use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::control::Control;
use crate::control::outcome::Replacement;
use crate::observe::{counted, whole_millis};

impl Control {
    /// Publishes a load of `objects` in `files`. The load began at `begun`.
    pub(super) fn publish(
        &mut self,
        replacement: Replacement,
        files: usize,
        objects: usize,
        begun: Instant,
    ) {
        let Replacement { snapshot, mut sockets, accepted, held, conditions, view, api_dir } =
            replacement;
        let (generation, counts) = (snapshot.generation, snapshot.counts);
        self.conditions = conditions;
        self.api.show(view);
        self.api_dir = api_dir;
        self.accepted = Some(Arc::new(accepted));
        self.gateway.access_log.files().make_missing();
        // Exporters must run before the first request is traced.
        self.tasks.serve(&snapshot);
        self.gateway.snapshot.publish(snapshot);
        self.sockets.commit(&mut sockets);
        for (bind, socket, copies) in sockets.new {
            self.workers.listen(bind, socket, copies);
        }
        for socket in sockets.gone {
            self.workers.close(socket);
        }
        for warning in &sockets.warnings {
            tracing::warn!("{warning}");
        }
        if let Some(Err(error)) = self.addresses.as_mut().map(|kept| kept.keep(&held)) {
            tracing::warn!(%error, "the addresses of Gateways cannot be kept for the next start");
        }
        self.held = held;
        let took = clock::now().saturating_duration_since(begun);
        tracing::info!(
            generation,
            routes = counts.routes,
            listeners = counts.listeners,
            backends = counts.backends,
            objects,
            files,
            took_ms = whole_millis(took),
            "serving {} on {} to {}, from {} in {}",
            counted(counts.routes, "route"),
            counted(counts.listeners, "listener"),
            counted(counts.backends, "backend"),
            counted(objects, "object"),
            counted(files, "file"),
        );
    }
}
