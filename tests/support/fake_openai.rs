//! A fake OpenAI-compatible server over real HTTP.
