//! Direct links in the store, by the names of both endpoints.

use redb::TableDefinition;

use super::Error;
use super::tables::{Json, Transaction};
use crate::spec::{DirectLink, Name};

const DIRECT: TableDefinition<(&str, &str), Json> = TableDefinition::new("direct");

impl Transaction {
    /// The direct link of two endpoints, whichever is named first.
    pub fn direct(&self, a: &Name, b: &Name) -> Result<Option<DirectLink>, Error> {
        self.get(DIRECT, (a.min(b).as_str(), a.max(b).as_str()))
    }

    /// Every direct link, by the names of its endpoints.
    pub fn directs(&self) -> Result<Vec<DirectLink>, Error> {
        self.all(DIRECT)
    }

    /// The direct links of an endpoint.
    pub fn directs_of(&self, endpoint: &Name) -> Result<Vec<DirectLink>, Error> {
        let all = self.directs()?;
        Ok(all.into_iter().filter(|link| link.endpoints().contains(&endpoint)).collect())
    }

    /// Notes a direct link.
    pub fn put_direct(&self, link: &DirectLink) -> Result<(), Error> {
        let [a, b] = link.endpoints();
        self.put(DIRECT, (a.as_str(), b.as_str()), link)
    }

    /// Forgets a direct link.
    pub fn remove_direct(&self, link: &DirectLink) -> Result<(), Error> {
        let [a, b] = link.endpoints();
        self.inner.open_table(DIRECT)?.remove((a.as_str(), b.as_str()))?;
        Ok(())
    }
}
