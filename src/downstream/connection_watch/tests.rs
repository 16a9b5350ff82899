//! Tests of the state of a connection.

use super::*;
use crate::clock::set_coarse_now;

fn watch(now: Millis) -> Arc<Watch> {
    Arc::new(Watch::new("192.0.2.1:1000".parse().unwrap(), Arc::new(limits()), now))
}

fn limits() -> ClientLimits {
    ClientLimits {
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        body_timeout: Duration::from_secs(30),
        send_timeout: Duration::from_secs(30),
        ..ClientLimits::default()
    }
}

#[test]
fn a_head_has_ten_seconds_in_all_however_it_drips() {
    let watch = watch(1000);
    for now in (1000..=11_000).step_by(1000) {
        watch.read(now);
        assert_eq!(watch.overdue(now), None, "{now}");
    }
    assert_eq!(watch.overdue(11_001), Some(Ending::AtOnce));
}

#[test]
fn the_clock_of_the_first_head_starts_after_the_handshake() {
    let watch = watch(1000);
    watch.begins_handshake();
    assert_eq!(watch.overdue(1_000_000), None, "its task keeps its time");
    watch.ends_handshake(1_000_000);
    assert_eq!(watch.overdue(1_010_000), None);
    assert_eq!(watch.overdue(1_010_001), Some(Ending::AtOnce));
}

#[test]
fn the_limits_of_the_listener_hold_once_it_is_known() {
    let watch = watch(1000);
    assert_eq!(watch.overdue(5001), None, "the bind allows 10 s");
    let head_timeout = Duration::from_secs(4);
    watch.limited_by(&Arc::new(ClientLimits { head_timeout, ..limits() }));
    assert_eq!(watch.overdue(5000), None);
    assert_eq!(watch.overdue(5001), Some(Ending::AtOnce));
    watch.limited_by(&Arc::new(limits()));
    assert_eq!(watch.overdue(5001), Some(Ending::AtOnce), "a reload changes nothing");
}

#[test]
fn between_requests_a_connection_may_rest_for_the_idle_timeout() {
    let watch = watch(1000);
    set_coarse_now(5000);
    drop(watch.open());
    let idle = watch.idle_since().unwrap();
    assert_eq!(watch.overdue(idle + 60_000), None);
    assert_eq!(watch.overdue(idle + 60_001), Some(Ending::Gracefully));
    // The first byte of the next head starts the shorter timeout.
    watch.read(idle + 50_000);
    assert_eq!(watch.overdue(idle + 60_000), None);
    assert_eq!(watch.overdue(idle + 60_001), Some(Ending::AtOnce));
}

#[test]
fn an_open_exchange_ends_only_for_a_stalled_client() {
    let watch = watch(1000);
    let open = watch.open();
    assert_eq!(watch.overdue(1_000_000), None, "a backend may take its time");

    watch.awaits_body(true, 2000);
    assert_eq!(watch.overdue(32_000), None);
    assert_eq!(watch.overdue(32_001), Some(Ending::AtOnce));
    watch.awaits_body(false, 40_000);
    assert_eq!(watch.overdue(50_000), None);

    watch.wrote(50_000, true);
    watch.wrote(60_000, true);
    assert_eq!(watch.overdue(80_001), Some(Ending::AtOnce));
    watch.wrote(81_000, false);
    assert_eq!(watch.overdue(90_000), None);
    drop(open);
}

/// No timeout of a connection expires while bytes move in the other direction.
#[test]
fn who_sends_may_leave_what_it_is_sent_and_who_is_sent_something_may_rest() {
    let (http1, http2) = (watch(1000), watch(1000));
    http2.speaks_http2();
    let open = [http1.open(), http2.open()];
    for watch in [&http1, &http2] {
        watch.awaits_body(true, 2000);
        for now in (2000..=90_000).step_by(10_000) {
            watch.sent(now);
            assert_eq!(watch.overdue(now + 9_999), None, "{now}");
        }
        watch.awaits_body(false, 92_000);
        watch.wrote(92_000, true);
        watch.read(110_000);
    }
    assert_eq!(http1.overdue(130_000), None, "it is sending");
    assert_eq!(http1.overdue(140_001), Some(Ending::AtOnce));
    let late = http2.overdue(130_000);
    assert_eq!(late, Some(Ending::AtOnce), "over HTTP/2 what came may be anything");
    drop(open);
}

#[test]
fn an_http2_client_is_gone_that_neither_says_nor_takes_anything() {
    let watch = watch(1000);
    watch.speaks_http2();
    let open = watch.open();
    watch.read(2000);
    // The PING is sent after half of the idle timeout.
    watch.sent(32_000);
    assert_eq!(watch.overdue(92_000), None);
    assert_eq!(watch.overdue(92_001), Some(Ending::AtOnce));
    watch.read(92_000);
    assert_eq!(watch.overdue(152_000), None);
    drop(open);
}

#[test]
fn a_client_with_its_answer_is_read_for_a_while() {
    let lingering = || {
        let watch = watch(1000);
        drop(watch.open());
        watch.lingers(1000);
        watch
    };
    let silent = lingering();
    assert_eq!(silent.overdue(6000), None);
    assert_eq!(silent.overdue(6001), Some(Ending::AtOnce));
    let busy = lingering();
    for now in (1000..=31_000).step_by(1000) {
        busy.read(now);
        assert_eq!(busy.overdue(now), None, "{now}");
    }
    busy.read(31_001);
    assert_eq!(busy.overdue(31_001), Some(Ending::AtOnce));

    let drained = watch(1000);
    let drains = drained.drains();
    drained.read(2000);
    assert_eq!(drained.overdue(100_000), None, "its task keeps the time");
    set_coarse_now(5000);
    drop(drains);
    let idle = drained.idle_since().unwrap();
    assert_eq!(drained.overdue(idle + 1), None, "what came was no head");
}

#[test]
fn a_client_that_makes_no_room_is_stuck() {
    let watch = watch(1000);
    assert!(!watch.is_stuck(1_000_000, 1000), "it is owed nothing");
    watch.wrote(5000, true);
    assert_eq!((watch.is_stuck(6000, 1000), watch.is_stuck(6001, 1000)), (false, true));
    watch.wrote(6000, false);
    assert!(!watch.is_stuck(9000, 1000));
    watch.owes_body(true, 8000);
    assert_eq!((watch.is_stuck(9000, 1000), watch.is_stuck(9001, 1000)), (false, true));
    watch.owes_body(false, 9000);
    assert!(!watch.is_stuck(20_000, 1000));
}

#[tokio::test]
async fn a_client_that_gives_up_most_of_what_it_asks_is_ended() {
    let patient = watch(1);
    let hasty = watch(1);
    for number in 0..1000 {
        drop(patient.open());
        drop(hasty.open());
        if number % 3 == 0 {
            patient.abandoned();
        }
        hasty.abandoned();
    }
    assert_eq!(hasty.ending(None).await, Ending::AtOnce);
    let early = tokio::time::timeout(Duration::from_millis(1), patient.ending(None));
    assert!(early.await.is_err(), "a third is no flood");
}

#[tokio::test]
async fn a_stronger_ending_follows_a_weaker_one() {
    let watch = watch(1);
    watch.end(Ending::Gracefully);
    assert_eq!(watch.ending(None).await, Ending::Gracefully);
    watch.end(Ending::AtOnce);
    watch.end(Ending::Gracefully);
    assert_eq!(watch.ending(Some(Ending::Gracefully)).await, Ending::AtOnce);
}

/// Only a connection that has everything behind it may be taken from hyper.
#[test]
fn a_connection_parks_between_two_requests_and_only_then() {
    let parks_after_a_while = |watch: &Watch| {
        let asked = watch.parking.is_asked();
        watch.park_if_at_rest(1_000_000);
        !asked && watch.parking.is_asked() && watch.parks()
    };
    let fresh = watch(1000);
    fresh.park_if_at_rest(2000);
    assert!(!fresh.parking.is_asked(), "for a second it may send a request");
    assert!(parks_after_a_while(&fresh) && fresh.is_parked());

    // One request has arrived and was answered.
    let used = || {
        let watch = watch(1000);
        watch.read(1000);
        watch.parking.arrived(Some(1));
        drop(watch.open());
        watch.parking.wrote();
        watch.parking.flushed();
        watch
    };
    assert!(parks_after_a_while(&used()));
    // (what keeps the connection from being parked)
    type Event = fn(&Arc<Watch>);
    let table: [Event; 9] = [
        |watch| watch.parking.wrote(),
        |watch| watch.parking.arrived(Some(2)),
        |watch| watch.parking.arrived(None),
        |watch| watch.read(2000),
        |watch| std::mem::forget(watch.open()),
        |watch| std::mem::forget(watch.drains()),
        |watch| watch.lingers(2000),
        |watch| watch.speaks_http2(),
        |watch| watch.end(Ending::Gracefully),
    ];
    for (row, event) in table.into_iter().enumerate() {
        let watch = used();
        event(&watch);
        assert!(!parks_after_a_while(&watch), "row {row}");
    }

    let asked = used();
    asked.park_if_at_rest(1_000_000);
    let open = asked.open();
    assert!(!asked.parks(), "a request came first");
    drop(open);
    assert!(!asked.is_parked() && !asked.parking.is_asked(), "it may be asked again");
}

#[tokio::test]
async fn an_ending_comes_before_parking() {
    let watch = watch(1);
    watch.park_if_at_rest(1_000_000);
    assert_eq!(watch.signal(None).await, Signal::Park);
    watch.end(Ending::Gracefully);
    assert_eq!(watch.signal(None).await, Signal::End(Ending::Gracefully));
}
