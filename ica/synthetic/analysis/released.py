"""Numbers that the authors' released code holds, for comparison; typed in here once, and nowhere else computed.

Source: the outputs stored in the notebook `synthetic_experiment/evaluate_wrong_reward.ipynb` of the released repository at
commit 435d592. One run; no band is known.
"""

# 1 - cos(prediction, y*) of the released transformer after n = 2, ..., 15 triplets, by the probability p with which each
# reward is replaced by a fresh U(0, 1).
NOISE = {
    0.0: [0.519, 0.370, 0.347, 0.336, 0.327, 0.318, 0.315, 0.309, 0.307, 0.304, 0.302, 0.301, 0.298, 0.297],
    0.25: [0.647, 0.512, 0.505, 0.477, 0.460, 0.449, 0.440, 0.427, 0.422, 0.418, 0.410, 0.407, 0.401, 0.399],
    0.5: [0.781, 0.694, 0.679, 0.665, 0.666, 0.643, 0.616, 0.618, 0.620, 0.617, 0.617, 0.621, 0.622, 0.624],
    0.75: [0.924, 0.867, 0.888, 0.922, 0.897, 0.908, 0.890, 0.880, 0.867, 0.850, 0.844, 0.841, 0.832, 0.837],
    1.0: [1.022, 1.051, 1.061, 1.067, 1.067, 1.063, 1.079, 1.080, 1.065, 1.062, 1.061, 1.070, 1.079, 1.083],
}
