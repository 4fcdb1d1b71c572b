// What metrics are called, and which chart they are in.

/** Title and unit of the trainer's values, in the order of their charts. @type {Record<string, [string, string]>} */
export const TRAINER = {
  total_loss: ["Model loss, all terms", "weighted sum"],
  consistency_loss: ["Prediction of latent states", "squared error"],
  reward_loss: ["Prediction of rewards", "cross-entropy, nats"],
  value_loss: ["Critics", "nats; PPO: squared error"],
  critic_loss: ["Critics", "cross-entropy, nats"],
  actor_loss: ["Policy loss", ""],
  policy_loss: ["Policy loss, all terms", "weighted sum"],
  bc_loss: ["Cloning and entropy (pretraining)", "weighted sum"],
  bc: ["Actions of demonstrations (pretraining)", "squared error"],
  policy_bc: ["Policy: actions of the batch", "squared error"],
  policy_q: ["Value of the policy's actions", "return"],
  policy_scaled_entropy: ["Entropy of the policy", "scaled, nats"],
  entropy: ["Entropy of the policy", "nats"],
  approx_kl: ["Change of the policy since its rollout", "KL divergence, nats"],
  clip_fraction: ["Probability ratios that are clipped", "share"],
  explained_variance: ["Returns that the critic explains", "share of their variance"],
  target_value: ["Targets of the critics", "return, scaled"],
  reward_scale: ["Rewards are divided by", "reward"],
  td_target: ["Targets of the critics", "return"],
  scale: ["Scale of values in the policy loss", "return"],
  scale_min: ["Smallest scale of a task", "return"],
  scale_max: ["Largest scale of a task", "return"],
  grad_norm: ["Gradient of the model, before clipping", "norm"],
  policy_grad_norm: ["Gradient of the policy, before clipping", "norm"],
  updates_behind: ["Behind the steps taken", "updates"],
  weights_age_s: ["Age of the weights that act", "seconds"],
  weights_age_updates: ["Age of the weights that act", "updates"],
  blocked_s: ["Waiting for batches", "seconds per report"],
};

/** Means over tasks. @type {Record<string, [string, string]>} */
const MEANS = {
  score: ["Score of training episodes", "mean over tasks"],
  return: ["Return of training episodes", "mean over tasks"],
  success: ["Success of training episodes", "mean over tasks that define it"],
  eval_score: ["Score of evaluations", "mean over tasks"],
  eval_success: ["Success of evaluations", "mean over tasks that define it"],
  episodes: ["Training episodes", "so far"],
};

/** Charts of speeds, in this order. @type {Record<string, [string, string]>} */
export const SPEEDS = {
  env_steps_per_s: ["Collection", "env steps per second"],
  updates_per_s: ["Training", "updates per second"],
};

const ALL = new Map(Object.entries({ ...MEANS, ...SPEEDS, ...TRAINER }));

/** A name that is not listed, as words. @param {string} name */
export const title = (name) => ALL.get(name)?.[0] ?? name.replaceAll("_", " ");

/** @param {string} name */
export const unit = (name) => ALL.get(name)?.[1] ?? "";

/** The names in the order of their charts: those that are known, then the others. @param {string[]} names */
export function ordered(names) {
  const known = Object.keys(TRAINER);
  const place = (/** @type {string} */ name) => (known.includes(name) ? known.indexOf(name) : known.length);
  return [...names].sort((a, b) => place(a) - place(b) || a.localeCompare(b));
}
