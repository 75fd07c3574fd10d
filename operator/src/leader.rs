//! Leader election by a Lease. Fail-stop: a leader that cannot renew the Lease in time reports it,
//! and the process ends, so that two replicas never act at once. The clocks of two machines are
//! never compared: a Lease has expired when this replica has not observed it change for the duration
//! of the Lease.
//!
//! kube-lease-manager does not replace this: it compares `renewTime` with the local clock.
#![allow(clippy::disallowed_methods)] // Spans of time, which a paused runtime of a test controls as well.

use crate::health::Readiness;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// A Lease that was not renewed for this long has expired, and any replica may take it.
const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long gives up. This is earlier than another replica can
/// consider the Lease expired.
const RENEWAL_DEADLINE: Duration = Duration::from_secs(10);
/// Timeout of one attempt to renew; the deadline leaves time for another.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval between renewals.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(4);
/// Interval between reads of a Lease that another replica holds.
const READ_INTERVAL: Duration = Duration::from_secs(2);

/// What to do with a Lease in the state that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// The Lease does not exist.
    Create,
    /// The Lease has no holder, has expired, or was already held by this replica.
    Take,
    /// Another replica holds the Lease.
    Wait,
}

fn decide(lease: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    let duration = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.map_or(LEASE_DURATION, Duration::from_secs);
    match lease.holder_identity.as_deref() {
        None | Some("") => Decision::Take,
        Some(holder) if holder == identity => Decision::Take,
        Some(_) if unchanged >= duration => Decision::Take,
        Some(_) => Decision::Wait,
    }
}

/// This replica as a candidate.
pub struct Election {
    leases: Api<Lease>,
    name: String,
    identity: String,
    readiness: Readiness,
}

/// Leadership was lost, and why.
#[derive(Debug, thiserror::Error)]
#[error("leadership lost: {0}")]
pub struct LeadershipLost(String);

impl Election {
    /// `identity` is the unique name of this replica: its pod's name.
    pub fn new(leases: Api<Lease>, name: &str, identity: String, readiness: Readiness) -> Election {
        Election { leases, name: name.to_owned(), identity, readiness }
    }

    /// Waits until this replica is the leader; returns the Lease that it holds.
    pub async fn acquire(&self) -> Lease {
        let mut observed: Option<(Option<String>, Instant)> = None;
        loop {
            match self.try_acquire(&mut observed).await {
                Ok(Some(lease)) => return lease,
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "failed to acquire the lease; retrying"),
            }
            sleep(READ_INTERVAL).await;
        }
    }

    async fn try_acquire(
        &self,
        observed: &mut Option<(Option<String>, Instant)>,
    ) -> Result<Option<Lease>, kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        self.readiness.set(true);
        let version = found.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        let since = match observed {
            Some((known, since)) if *known == version => *since,
            _ => {
                *observed = Some((version, Instant::now()));
                Instant::now()
            }
        };
        let spec = found.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        let taken = match (decide(spec.as_ref(), &self.identity, since.elapsed()), found) {
            (Decision::Wait, _) => return Ok(None),
            (Decision::Take, Some(lease)) => self.write(lease).await,
            (Decision::Take | Decision::Create, _) => {
                let lease =
                    Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..Default::default() }, spec: None };
                self.leases.create(&PostParams::default(), &self.with_holder(lease)).await
            }
        };
        match taken {
            Ok(lease) => Ok(Some(lease)),
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The Lease with this replica as its holder, renewed now.
    fn with_holder(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or_default() + i32::from(!mine)),
            ..Default::default()
        });
        lease
    }

    /// Replaces the Lease. Its resource version makes the write fail if another replica wrote in
    /// between.
    async fn write(&self, lease: Lease) -> Result<Lease, kube::Error> {
        self.leases.replace(&self.name, &PostParams::default(), &self.with_holder(lease)).await
    }

    /// Renews the Lease until that fails for good; returns why.
    pub async fn renew_until_lost(&self, mut lease: Lease) -> LeadershipLost {
        let mut renewed = Instant::now();
        let mut last_error = String::new();
        loop {
            sleep(if last_error.is_empty() { RENEWAL_INTERVAL } else { Duration::from_secs(1) }).await;
            let left = RENEWAL_DEADLINE.saturating_sub(renewed.elapsed()).min(RENEWAL_TIMEOUT);
            let began = Instant::now();
            match timeout(left, self.write(lease.clone())).await {
                Ok(Ok(written)) => {
                    lease = written;
                    renewed = began;
                    last_error.clear();
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                    // Another replica took the Lease, or the response to this replica's own write
                    // was lost.
                    match self.leases.get(&self.name).await {
                        Ok(found) if self.is_mine(&found) => lease = found,
                        Ok(_) => return LeadershipLost("another replica holds the lease".into()),
                        Err(error) => last_error = error.to_string(),
                    }
                }
                Ok(Err(error)) => last_error = error.to_string(),
                Err(_) => last_error = "no response in time".into(),
            }
            if !last_error.is_empty() {
                tracing::warn!(error = last_error, "failed to renew the lease; retrying");
            }
            if renewed.elapsed() >= RENEWAL_DEADLINE {
                return LeadershipLost(format!("the lease was not renewed for {RENEWAL_DEADLINE:?}: {last_error}"));
            }
        }
    }

    fn is_mine(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.identity)
    }

    /// Gives up leadership, so that another replica does not have to wait until the Lease expires.
    pub async fn release(&self) {
        let released = async {
            let mut lease = self.leases.get(&self.name).await?;
            if self.is_mine(&lease) {
                lease.spec.get_or_insert_default().holder_identity = Some(String::new());
                self.leases.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match timeout(READ_INTERVAL, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to release the lease; it will expire"),
            Err(_) => tracing::warn!("timed out releasing the lease; it will expire"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str) -> LeaseSpec {
        LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(15), ..Default::default() }
    }

    #[test]
    fn a_lease_is_taken_only_when_no_other_replica_holds_it() {
        let moments = Duration::from_secs(14);
        assert_eq!(decide(None, "me", moments), Decision::Create);
        assert_eq!(decide(Some(&lease("")), "me", moments), Decision::Take);
        assert_eq!(decide(Some(&lease("me")), "me", moments), Decision::Take);
        assert_eq!(decide(Some(&lease("other")), "me", moments), Decision::Wait);
        assert_eq!(decide(Some(&lease("other")), "me", LEASE_DURATION), Decision::Take);
    }

    #[test]
    fn a_leader_gives_up_before_another_takes_over() {
        assert!(RENEWAL_DEADLINE + RENEWAL_INTERVAL <= LEASE_DURATION);
    }
}
