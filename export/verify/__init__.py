"""Is the exported graph the model? Layer by layer, teacher-forced.

Comparing logits proves nothing in a deep spiking network: one borderline spike cascades. So each of the model's modules is given
the *exported* graph's own values as input. A neuron must then give the same spikes, every one; any other module must agree to
2e-5 of its output's standard deviation (float32 sums in another order).
"""
