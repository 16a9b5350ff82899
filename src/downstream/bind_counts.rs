//! The counters of a bind, held by each of its connections.

use std::sync::Arc;

use crate::stats::{Downstream, Sharded};

/// The counters of a connection's bind. The connection counts as open while this lives.
#[derive(Debug)]
pub(crate) struct BindCounts(Arc<Sharded<Downstream>>);

impl BindCounts {
    pub(crate) fn new(counts: &Arc<Sharded<Downstream>>) -> Self {
        counts.here().connections.one_more();
        counts.here().connections_active.one_more();
        Self(Arc::clone(counts))
    }

    pub(crate) fn here(&self) -> &Downstream {
        self.0.here()
    }

    pub(crate) fn of_bind(&self) -> Arc<Sharded<Downstream>> {
        Arc::clone(&self.0)
    }
}

impl Drop for BindCounts {
    fn drop(&mut self) {
        self.here().connections_active.one_less();
    }
}
