//! Exact balance: each accepted connection goes to the worker with the fewest connections.
//!
//! All workers accept from the same sockets, and the one that wakes first would take most of a
//! burst. It therefore assigns each connection to the worker with the fewest and hands it over if
//! that is another, before a runtime knows its socket. This is Envoy's exact balance; unlike
//! `SO_REUSEPORT`, it needs one socket only, such as systemd hands over.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, error::SendError};

use crate::downstream::{Assignment, Connections, WorkerConnections};
use crate::snapshot::BindKey;

/// An accepted connection on its way to the worker that is to serve it. No runtime knows its
/// socket.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub stream: std::net::TcpStream,
    pub peer: SocketAddr,
    pub bind: BindKey,
    pub assignment: Assignment,
}

/// The place of one worker among all workers.
#[derive(Debug)]
pub(crate) struct WorkerSeat {
    number: usize,
    balancer: Arc<Balancer>,
    /// Connections that other workers accepted for this one.
    pub(super) handed_over: UnboundedReceiver<HandedOver>,
}

/// Returns a seat for each of `count` workers, which divide all connections among them.
pub(crate) fn seats(count: usize, connections: &Connections) -> Vec<WorkerSeat> {
    let (entrances, received): (Vec<_>, Vec<_>) = (0..count)
        .map(|_| {
            let (hand_over, handed_over) = mpsc::unbounded_channel();
            (Entrance { connections: connections.add_worker(), hand_over }, handed_over)
        })
        .unzip();
    let balancer = Arc::new(Balancer { entrances: entrances.into(), choice: Mutex::new(()) });
    let seat =
        |(number, handed_over)| WorkerSeat { number, balancer: Arc::clone(&balancer), handed_over };
    received.into_iter().enumerate().map(seat).collect()
}

impl WorkerSeat {
    /// Returns the connections of this worker.
    pub(super) fn connections(&self) -> Arc<WorkerConnections> {
        Arc::clone(&self.balancer.entrances[self.number].connections)
    }

    /// Returns a handle for the tasks that accept connections for all workers.
    pub(super) fn assigner(&self) -> Assigner {
        Assigner { number: self.number, balancer: Arc::clone(&self.balancer) }
    }
}

/// Assigns the connections that one worker accepts.
#[derive(Clone, Debug)]
pub(super) struct Assigner {
    number: usize,
    balancer: Arc<Balancer>,
}

impl Assigner {
    /// Assigns a connection to the worker with the fewest, among equals to the one that accepted
    /// it. Hands it over, or returns it if that one is to serve it.
    ///
    /// # Errors
    ///
    /// Fails if the event queue cannot be changed; the connection is closed.
    pub(super) fn assign(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        bind: BindKey,
    ) -> io::Result<Option<(TcpStream, Assignment)>> {
        let (chosen, assignment) = self.choose();
        if chosen == self.number {
            return Ok(Some((stream, assignment)));
        }
        let stream = stream.into_std()?;
        let entrances = &self.balancer.entrances;
        match entrances[chosen].hand_over.send(HandedOver { stream, peer, bind, assignment }) {
            Ok(()) => Ok(None),
            // That worker has begun to drain in the meantime.
            Err(SendError(HandedOver { stream, .. })) => {
                let assignment = entrances[self.number].connections.assign();
                Ok(Some((TcpStream::from_std(stream)?, assignment)))
            }
        }
    }

    /// Chooses a worker and counts a connection for it. A worker that drains is not chosen.
    fn choose(&self) -> (usize, Assignment) {
        let Balancer { entrances, choice } = &*self.balancer;
        let _choice = choice.lock().unwrap_or_else(PoisonError::into_inner);
        let open = entrances.iter().enumerate().filter(|(_, of)| !of.hand_over.is_closed());
        let fewest =
            open.min_by_key(|(number, of)| (of.connections.count(), *number != self.number));
        let chosen = fewest.map_or(self.number, |(number, _)| number);
        (chosen, entrances[chosen].connections.assign())
    }
}

/// All workers.
#[derive(Debug)]
struct Balancer {
    entrances: Box<[Entrance]>,
    /// Locked while a worker is chosen and counted, once for each connection: two workers that
    /// accept at the same time would otherwise choose the same.
    choice: Mutex<()>,
}

/// The way to a worker.
#[derive(Debug)]
struct Entrance {
    connections: Arc<WorkerConnections>,
    hand_over: UnboundedSender<HandedOver>,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::{TestCaseError, any, prop_assert, prop_assert_eq, proptest};
    use tokio::net::TcpListener;

    use super::*;
    use crate::snapshot::Transport;

    /// Has worker `number` accept a connection; returns the client too.
    async fn accept(
        listener: &TcpListener,
        seats: &[WorkerSeat],
        number: usize,
    ) -> (TcpStream, Option<(TcpStream, Assignment)>) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let bind = BindKey { address: None, port: 80, transport: Transport::Tcp };
        (client, seats[number].assigner().assign(stream, peer, bind).unwrap())
    }

    async fn listener() -> TcpListener {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    fn counts(seats: &[WorkerSeat]) -> Vec<usize> {
        seats.iter().map(|seat| seat.connections().count()).collect()
    }

    #[tokio::test]
    async fn a_connection_stays_where_it_was_accepted_unless_another_worker_has_fewer() {
        let (listener, connections) = (listener().await, Connections::default());
        let mut seats = seats(3, &connections);
        let (_client, own) = accept(&listener, &seats, 1).await;
        assert!(own.is_some(), "all have none");
        // (worker that accepts, connections of each worker after it)
        for (number, want) in [(1, [1, 1, 0]), (0, [1, 1, 1])] {
            assert!(accept(&listener, &seats, number).await.1.is_none());
            assert_eq!(counts(&seats), want);
        }
        drop(own);
        assert_eq!(counts(&seats), [1, 0, 1], "an ended connection does not count");
        assert!(accept(&listener, &seats, 2).await.1.is_none());
        assert_eq!(counts(&seats), [1, 1, 1]);
        for seat in &mut seats {
            assert!(seat.handed_over.try_recv().is_ok());
        }
    }

    /// A case of the property below: workers accept in the order of `burst`, and drain at its
    /// zeros.
    async fn divide(count: usize, burst: Vec<(usize, u8)>) -> Result<(), TestCaseError> {
        let (listener, connections) = (listener().await, Connections::default());
        let mut seats = seats(count, &connections);
        let (mut clients, mut kept, mut handed) = (Vec::new(), Vec::new(), Vec::new());
        let mut draining = vec![false; count];
        for (number, event) in burst {
            let number = number % count;
            if event == 0 {
                seats[number].handed_over.close();
                draining[number] = true;
            }
            if draining[number] {
                continue;
            }
            let before = counts(&seats);
            let (client, own) = accept(&listener, &seats, number).await;
            clients.push(client);
            kept.extend(own);
            let after = counts(&seats);
            let got = (0..count).find(|of| after[*of] > before[*of]).unwrap();
            prop_assert!(!draining[got]);
            let fewest = (0..count).filter(|of| !draining[*of]).map(|of| before[of]).min();
            prop_assert_eq!(Some(before[got]), fewest);
        }
        for seat in &mut seats {
            seat.handed_over.close();
            while let Some(one) = seat.handed_over.recv().await {
                handed.push(one);
            }
        }
        prop_assert_eq!(kept.len() + handed.len(), clients.len());
        drop((kept, handed));
        prop_assert_eq!(counts(&seats).into_iter().sum::<usize>(), 0);
        Ok(())
    }

    proptest! {
        #[test]
        fn no_connection_is_lost_and_each_goes_to_the_worker_with_the_fewest(
            count in 1_usize..=8,
            burst in proptest::collection::vec((any::<usize>(), 0_u8..=24), 1..=64),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            runtime.unwrap().block_on(divide(count, burst))?;
        }
    }
}
