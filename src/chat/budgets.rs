//! The budgets of users: each command is charged to one of them before it does any work.

use std::sync::Arc;

use prometheus::IntCounter;

use crate::{
    backplane::{Backplane, RateDecision},
    config::{Limits, RateLimit},
    metrics::Metrics,
    model::{Budget, Cost, Identity, Reject},
};

/// Charges commands to their users' budgets.
pub(super) struct Budgets {
    backplane: Arc<Backplane>,
    limits: Limits,
    /// The counters of refusals, in the order of [`Budget::ALL`].
    refusals: [IntCounter; Budget::ALL.len()],
}

impl Budgets {
    pub(super) fn new(backplane: Arc<Backplane>, metrics: &Metrics, limits: Limits) -> Self {
        let refusals = Budget::ALL.map(|budget| metrics.rate_limited.with_label_values(&[budget.label()]));
        Self { backplane, limits, refusals }
    }

    /// Charges a command to its user, or refuses it because the budget is used up. The caller counts the refusal with
    /// [`Budgets::count_refusal`] if it stands.
    pub(super) async fn charge(&self, identity: &Identity, cost: Cost) -> Result<(), Reject> {
        let limit = self.limit(identity, cost.budget);
        match self.backplane.admit(&identity.user, cost, limit).await {
            RateDecision::Admitted => Ok(()),
            RateDecision::Refused { sent, retry_after } => {
                Err(Reject::RateLimited { sent, limit, setting: cost.budget.setting(), retry_after })
            }
        }
    }

    /// Charges a change that a read makes, such as the membership in an open conversation that a user joins.
    pub(super) async fn charge_change(&self, identity: &Identity) -> Result<(), Reject> {
        self.charge(identity, Cost::CHANGE).await.inspect_err(|_| self.count_refusal(Cost::CHANGE.budget))
    }

    /// Counts a command that was refused or dropped because of a budget.
    pub(super) fn count_refusal(&self, budget: Budget) {
        self.refusals[budget.index()].inc();
    }

    /// Moves the charge of a command that turned out to be a repeat to the read budget. If that is used up, the charge
    /// stays where it is; otherwise repeats would have no bound.
    pub(super) async fn charge_as_repeat(&self, identity: &Identity, charged: Budget) {
        let limit = self.limit(identity, charged);
        if limit > 0 && self.charge(identity, Cost::LOOKUP).await.is_ok() {
            self.backplane.refund(&identity.user, charged, limit).await;
        }
    }

    fn limit(&self, identity: &Identity, budget: Budget) -> u32 {
        let rate: &RateLimit = match budget {
            Budget::Send => &self.limits.message_rate,
            Budget::Write => &self.limits.write_rate,
            Budget::Read => &self.limits.read_rate,
            Budget::Event => &self.limits.event_rate,
        };
        rate.of(identity.tier.as_ref())
    }
}
