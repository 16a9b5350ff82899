//! The task that checks the hosts of a cluster.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::health::host_health::{HostHealth, Turn};
use crate::upstream::health::probe::probe;
use crate::upstream::health::sweep::sweep;
use crate::upstream::host::Host;

/// Maximum number of checks of one cluster at the same time.
const MOST_AT_ONCE: usize = 32;

/// Minimum time between two rounds over the hosts of a cluster.
const SHORTEST_ROUND: Duration = Duration::from_millis(10);

/// Maximum time between two rounds, for names whose addresses change.
const LONGEST_ROUND: Duration = Duration::from_secs(5);

impl Cluster {
    /// Returns the future that checks the hosts of this cluster until the cluster is dropped or
    /// `ending` becomes true. `None` if it was returned before, or the cluster has no checks.
    pub(crate) fn check_hosts(
        self: &Arc<Self>,
        ending: watch::Receiver<bool>,
    ) -> Option<impl Future<Output = ()> + Send + use<>> {
        let alive = self.watched()?.begin()?;
        Some(check(Arc::downgrade(self), alive, ending))
    }
}

async fn check(
    cluster: Weak<Cluster>,
    mut alive: watch::Receiver<()>,
    mut ending: watch::Receiver<bool>,
) {
    let mut probes = JoinSet::new();
    while let Some(of) = cluster.upgrade() {
        let wait = round(&of, &mut probes);
        drop(of);
        tokio::select! {
            _ = alive.changed() => return,
            _ = ending.wait_for(|ending| *ending) => return,
            Some(_) = probes.join_next() => {}
            () = tokio::time::sleep(wait.max(SHORTEST_ROUND)) => {}
        }
    }
}

/// Sweeps if it is time, and starts the checks that are due. Returns the time until the next round.
fn round(cluster: &Arc<Cluster>, probes: &mut JoinSet<()>) -> Duration {
    let Some(settings) = &cluster.settings().health else { return LONGEST_ROUND };
    let (now, hosts) = (clock::now(), cluster.hosts());
    let mut wait = LONGEST_ROUND;
    if let (Some(check), Some(watched)) = (&settings.passive, cluster.watched()) {
        if watched.group().may_sweep(check, now) {
            let hosts: Vec<_> = hosts.iter().filter_map(|host| host.health()).collect();
            sweep(&hosts, check, now);
        }
        wait = wait.min(check.interval);
    }
    let Some(check) = &settings.active else { return wait };
    look_names_up(cluster);
    // The most overdue first, so that hosts that hang do not keep the others from being checked.
    let mut hosts = hosts;
    hosts.sort_by_key(|host| host.health().map(HostHealth::due_at));
    for host in hosts {
        let Some(health) = host.health() else { continue };
        if probes.len() >= MOST_AT_ONCE {
            // The end of a check begins the next round.
            break;
        }
        if let Some(turn) = health.take_turn(check, now) {
            probes.spawn(one(Arc::clone(cluster), Arc::clone(&host), turn));
        }
        wait = wait.min(health.due_in(now));
    }
    wait
}

/// Makes one check of a host, and records its outcome.
async fn one(cluster: Arc<Cluster>, host: Arc<Host>, turn: Turn) {
    let check = cluster.settings().health.as_ref().and_then(|of| of.active.as_ref());
    let (Some(check), Some(health)) = (check, host.health()) else { return };
    let outcome = probe(&cluster, check, host.address(), health.authority()).await;
    health.learn(check, &turn, outcome, clock::now());
}

/// Starts the lookups of names whose addresses are unknown or outdated. Does not wait for them.
fn look_names_up(cluster: &Cluster) {
    for endpoint in cluster.endpoints() {
        if let Endpoint::Named(named) = endpoint {
            named.refresh();
        }
    }
}
