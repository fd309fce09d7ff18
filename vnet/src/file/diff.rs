//! What is different between two descriptions, part by part.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::model::Model;
use crate::manage::Description;

/// What becomes of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It comes.
    Add,
    /// It is there in another form.
    Change,
    /// It goes.
    Remove,
    /// It stays, though it is not described.
    Keep,
}

/// One thing that is said of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its key.
    pub key: String,
    /// What was said.
    pub before: Option<String>,
    /// What is said now.
    pub after: Option<String>,
}

/// A part that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What kind of thing it is, as a file calls it.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// What of it differs.
    pub fields: Vec<Field>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, action, fields } = self;
        let sign = match action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
            Action::Keep => '=',
        };
        write!(f, "{sign} {kind}")?;
        if !name.is_empty() {
            write!(f, " {name}")?;
        }
        if *action == Action::Keep {
            return f.write_str(": not in the file, stays (--prune removes it)");
        }
        for (nth, Field { key, before, after }) in fields.iter().enumerate() {
            f.write_str(if nth == 0 { ": " } else { ", " })?;
            match (action, before, after) {
                (Action::Change, before, after) => {
                    let or_default =
                        |value: &Option<String>| value.clone().unwrap_or_else(|| "default".to_owned());
                    write!(f, "{key} {} -> {}", or_default(before), or_default(after))?;
                }
                (_, before, after) => {
                    let value = after.as_ref().or(before.as_ref()).map_or("", String::as_str);
                    write!(f, "{key} {value}")?;
                }
            }
        }
        Ok(())
    }
}

/// Kind and name of a part.
type PartName = (&'static str, String);
/// What is said of each part.
type Parts = BTreeMap<PartName, BTreeMap<String, String>>;

/// What is different, sorted by kind and name. `before` is nothing for an instance that is not up.
#[must_use]
pub fn diff(before: Option<&Description>, after: &Description) -> Vec<Change> {
    let (before, after) = (before.map_or_else(Parts::new, parts), parts(after));
    let mut changes = Vec::new();
    for (part, fields) in &before {
        if !after.contains_key(part) {
            let fields = fields.iter();
            let gone = |(key, value): (&String, &String)| Field {
                key: key.clone(),
                before: Some(value.clone()),
                after: None,
            };
            changes.push(change(part, Action::Remove, fields.map(gone).collect()));
        }
    }
    for (part, fields) in &after {
        let Some(old) = before.get(part) else {
            let made = |(key, value): (&String, &String)| Field {
                key: key.clone(),
                before: None,
                after: Some(value.clone()),
            };
            changes.push(change(part, Action::Add, fields.iter().map(made).collect()));
            continue;
        };
        let mut keys: Vec<&String> = old.keys().chain(fields.keys()).collect();
        keys.sort();
        keys.dedup();
        let field = |key: &String| Field {
            key: key.clone(),
            before: old.get(key).cloned(),
            after: fields.get(key).cloned(),
        };
        let differs: Vec<Field> =
            keys.into_iter().map(field).filter(|field| field.before != field.after).collect();
        if !differs.is_empty() {
            changes.push(change(part, Action::Change, differs));
        }
    }
    changes.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    changes
}

/// What is there and not described, sorted by kind and name.
#[must_use]
pub fn kept(described: &Description, after: &Description) -> Vec<Change> {
    let described = parts(described);
    let always = |(kind, name): &PartName| {
        matches!((*kind, name.as_str()), ("instance" | "router", _) | ("network", "default"))
    };
    let left = parts(after).into_keys().filter(|part| !described.contains_key(part) && !always(part));
    left.map(|part| change(&part, Action::Keep, Vec::new())).collect()
}

fn change((kind, name): &PartName, action: Action, fields: Vec<Field>) -> Change {
    Change { kind, name: name.clone(), action, fields }
}

/// What a description says, as it would be written.
fn parts(description: &Description) -> Parts {
    let model = Model::from(description);
    let mut parts = Parts::new();
    let mut add = |kind, name: String, fields: Vec<(String, String)>| {
        parts.insert((kind, name), fields.into_iter().collect());
    };
    if let Some(instance) = &model.instance {
        add("instance", String::new(), said(instance));
    }
    if let Some(router) = &model.router {
        add("router", String::new(), said(router));
    }
    model.networks.iter().for_each(|(name, it)| add("network", name.clone(), said(it)));
    model.endpoints.iter().for_each(|(name, it)| add("endpoint", name.clone(), said(it)));
    for (it, request) in model.portmaps.iter().zip(&description.port_maps) {
        let name = format!("{}/{}", request.published, request.protocol);
        let own = ["publish", "protocol"];
        add("portmap", name, said(it).into_iter().filter(|(key, _)| !own.contains(&key.as_str())).collect());
    }
    for it in &model.direct {
        let fields = said(it).into_iter().filter(|(key, _)| key != "between").collect();
        add("direct", it.between.join(" "), fields);
    }
    for it in &model.masquerades {
        let fields = said(it).into_iter().filter(|(key, _)| key != "sources").collect();
        add("masquerade", it.sources.clone(), fields);
    }
    for it in &model.floating {
        let fields = said(it).into_iter().filter(|(key, _)| key != "external").collect();
        add("floating", it.external.clone(), fields);
    }
    for (it, request) in model.limits.iter().zip(&description.cgroup_limits) {
        let own = ["cgroup", "classid"];
        let fields = said(it).into_iter().filter(|(key, _)| !own.contains(&key.as_str())).collect();
        add("limit", request.cgroup.to_string(), fields);
    }
    model.excluded.iter().for_each(|prefix| add("excluded", prefix.clone(), Vec::new()));
    model.denied.iter().for_each(|prefix| add("denied", prefix.clone(), Vec::new()));
    parts
}

/// What is said, by key.
fn said(of: &impl Serialize) -> Vec<(String, String)> {
    fn flat(prefix: &str, value: &serde_json::Value, into: &mut Vec<(String, String)>) {
        use serde_json::Value;
        let text = match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    flat(&key, value, into);
                }
                return;
            }
            Value::Array(items) => {
                let words =
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned));
                words.collect::<Vec<_>>().join(" ")
            }
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        into.push((prefix.to_owned(), text));
    }
    let mut fields = Vec::new();
    // What is written is always JSON.
    if let Ok(value) = serde_json::to_value(of) {
        flat("", &value, &mut fields);
    }
    fields
}
