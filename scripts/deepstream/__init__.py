"""DeepStream for this project: configs rendered per device, and a deepstream-app for the desk."""
