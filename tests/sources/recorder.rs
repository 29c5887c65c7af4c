//! A network that is none: names have the addresses that the test gives them, and a request is noted and answered from a
//! table.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use oarlock::sources::{Fetcher, Internet, Net, Policy};
use reqwest::{Response, Url};

/// What a host answers.
#[derive(Clone)]
pub enum Answer {
    /// A page of plain text.
    Text(&'static str),
    /// A redirect.
    To(String),
}

#[derive(Default)]
pub struct Recorder {
    /// The answers of the resolver to each name, one after the other; the last one stays.
    names: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    answers: Mutex<HashMap<String, Answer>>,
    pub lookups: Mutex<Vec<String>>,
    /// URL and addresses of each request.
    pub requests: Mutex<Vec<(String, Vec<SocketAddr>)>>,
    /// Whether requests really go out, to loopback.
    real: bool,
}

impl Recorder {
    /// A recorder whose requests go to real servers, which only a policy that allows loopback lets happen.
    pub fn to_loopback() -> Self {
        Self { real: true, ..Self::default() }
    }

    pub fn name(self, name: &str, answers: &[&[&str]]) -> Self {
        let answers = answers.iter().map(|answer| answer.iter().map(|text| text.parse().unwrap()).collect()).collect();
        self.names.lock().unwrap().insert(name.to_owned(), answers);
        self
    }

    pub fn answer(self, url: &str, answer: Answer) -> Self {
        self.answers.lock().unwrap().insert(url.to_owned(), answer);
        self
    }

    pub fn asked(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(url, _)| url.clone()).collect()
    }
}

#[async_trait]
impl Net for Recorder {
    async fn lookup(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        self.lookups.lock().unwrap().push(host.to_owned());
        let mut names = self.names.lock().unwrap();
        let answers = names.get_mut(host).ok_or_else(|| std::io::Error::other("no such name"))?;
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Ok(answer.unwrap_or_default())
    }

    async fn get(&self, url: &Url, addresses: &[SocketAddr]) -> Result<Response, String> {
        self.requests.lock().unwrap().push((url.to_string(), addresses.to_vec()));
        if self.real {
            assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{url} would leave the machine");
            return Internet.get(url, addresses).await;
        }
        let answer = self.answers.lock().unwrap().get(url.as_str()).cloned();
        let response = http::Response::builder();
        let response = match answer {
            Some(Answer::Text(text)) => response.header("content-type", "text/plain").body(text.to_owned()),
            Some(Answer::To(place)) => response.status(302).header("location", place).body(String::new()),
            None => response.status(404).body(String::new()),
        };
        Ok(response.unwrap().into())
    }
}

/// A fetcher over `recorder` that allows `allowed`.
pub fn fetcher(recorder: &Arc<Recorder>, allowed: &[&str]) -> Fetcher {
    Fetcher::over(policy(allowed), recorder.clone())
}

pub fn policy(allowed: &[&str]) -> Policy {
    Policy::allowing(allowed.iter().map(|text| text.parse().unwrap()).collect())
}

pub fn url(text: &str) -> Url {
    Url::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
