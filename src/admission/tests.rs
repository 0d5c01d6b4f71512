use std::collections::BTreeMap;

use futures_util::FutureExt;

use super::*;
use crate::config::{Config, Sources};

/// The default limits.
fn limits() -> Limits {
    let folder = tempfile::tempdir().unwrap();
    let flags = BTreeMap::from([("DATA_DIR".to_owned(), folder.path().to_str().unwrap().to_owned())]);
    let sources = Sources { flags, environment: Box::new(|_| None), dotenv: BTreeMap::new(), open_files: None };
    Config::load(true, &sources).unwrap().limits
}

fn known(admission: &Admission) -> Result<(), Refusal> {
    match admission {
        Admission::Admitted(permit) => permit.promote(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn released_places_are_reused() {
    let admission = ConnectionAdmission::new(&Limits { connections: 2, ..limits() });
    let first = admission.admit(None);
    let second = admission.admit(None);
    assert_eq!((known(&first), known(&second), known(&second)), (Ok(()), Ok(()), Ok(())));
    assert!(!admission.has_room() && (admission.sockets(), admission.strangers()) == (2, 0));
    let third = admission.admit(None);
    assert_eq!(known(&third), Err(Refusal::Full));
    drop(first);
    assert_eq!(admission.sockets(), 1);
    assert_eq!(known(&third), Ok(()));
}

#[test]
fn strangers_take_no_place_of_the_known_and_refusals_are_bounded_too() {
    let limits =
        Limits { connections: 1, unauthenticated: 10, unauthenticated_per_ip: 0, probe_sockets: 3, ..limits() };
    let admission = ConnectionAdmission::new(&limits);
    let early = admission.admit(None);
    let strangers: Vec<_> = (0..9).map(|_| admission.admit(None)).collect();
    let refused: Vec<_> = (0..3).map(|_| admission.admit(None)).collect();
    assert!(refused.iter().all(|refused| matches!(refused, Admission::Refused(Refusal::Crowded, _))));
    assert!(matches!(admission.admit(None), Admission::Dropped));
    assert!(admission.has_room());
    assert_eq!(known(&early), Ok(()));
    assert_eq!((admission.sockets(), admission.strangers()), (1, strangers.len()));
}

#[tokio::test]
async fn an_admin_socket_always_gets_a_place() {
    let admission = ConnectionAdmission::new(&Limits { probe_sockets: 10, ..limits() });
    let permit = |admission| match admission {
        Admission::Admitted(permit) => permit,
        other => panic!("{other:?}"),
    };
    let idle: Vec<_> = (0..10).map(|_| permit(admission.admit_admin())).collect();
    idle[0].requested();
    let _probe = permit(admission.admit_admin());
    idle[1].displaced().await;
    assert_eq!(idle[0].displaced().now_or_never(), None);
}

#[test]
fn addresses_are_counted_by_network() {
    let admission = ConnectionAdmission::new(&Limits { connections_per_ip: 1, ..limits() });
    let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let one = admission.admit(ip("192.0.2.1"));
    assert!(matches!(one, Admission::Admitted(_)));
    assert!(matches!(admission.admit(ip("::ffff:192.0.2.1")), Admission::Refused(Refusal::AddressFull, _)));
    assert!(matches!(admission.admit(ip("192.0.2.2")), Admission::Admitted(_)));
    let six = admission.admit(ip("2001:db8::1"));
    assert!(matches!(admission.admit(ip("2001:db8::2")), Admission::Refused(Refusal::AddressFull, _)));
    assert!(matches!(admission.admit(ip("2001:db8:0:1::1")), Admission::Admitted(_)));
    drop((one, six));
    assert!(matches!(admission.admit(ip("192.0.2.1")), Admission::Admitted(_)));
    assert!(admission.addresses.as_ref().unwrap().is_empty());
}

#[test]
fn a_bucket_refills() {
    let mut bucket = Bucket::new(10);
    let start = bucket.filled;
    assert!((0..10).all(|_| bucket.try_take(start)));
    assert!(!bucket.try_take(start));
    assert!(bucket.try_take(start + Duration::from_millis(101)));
    assert!(!bucket.try_take(start + Duration::from_millis(102)));
    assert_eq!((0..20).filter(|_| bucket.try_take(start + Duration::from_secs(60))).count(), 10);
}
