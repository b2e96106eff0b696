"""Write the training loop yourself; the step is compiled once, and its inputs are checked."""

import tinyseg as ts

data = ts.Dataset("sim:cells?n=12&size=32", size=32)
model = ts.UNet(in_channels=data.channels, out_channels=1, base_channels=4, depth=2)
step = ts.TrainStep(model, loss="0.5*bce+0.5*dice", optimizer="adam(lr=0.01)")
for epoch in range(3):
    for image, label in data.batches("train", batch_size=4, seed=epoch):
        measured = step(image, label)  # NumPy arrays or Tensors
    print(f"epoch {epoch}: loss {measured['loss'].item():.3f}")
