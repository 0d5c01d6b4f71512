//! The settings in force, each with its source. Secrets have no value here.

use serde::Serialize;

use crate::{
    config::SettingInForce,
    http::{
        HttpResult,
        rest::{Call, ok},
    },
    model::NodeId,
};

#[derive(Serialize)]
struct Settings<'a> {
    node: &'a NodeId,
    settings: Vec<Setting<'a>>,
    /// The node's notes about the settings, made at its start.
    notes: &'a [String],
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'static str,
    group: &'static str,
    value: Option<&'a str>,
    secret: bool,
    source: &'static str,
    variable: Option<&'a str>,
}

impl<'a> From<&'a SettingInForce> for Setting<'a> {
    fn from(one: &'a SettingInForce) -> Self {
        let SettingInForce { name, group, value, secret, source, variable } = one;
        let (value, variable) = (value.as_deref(), variable.as_deref());
        Self { name, group, value, secret: *secret, source: source.label(), variable }
    }
}

pub(super) fn list(call: &Call<'_>) -> HttpResult {
    let config = &call.service.broker().config;
    ok(&Settings {
        node: &config.node,
        settings: config.in_force.iter().map(Setting::from).collect(),
        notes: &config.notes,
    })
}
