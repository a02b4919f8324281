//! Which Deployments there are, situation by situation.
